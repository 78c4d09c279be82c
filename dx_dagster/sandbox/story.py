# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""What happened in a made-up workspace week by week, so that charts of it have something to show."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from dx_dagster.sandbox.people import User

_WEEK = timedelta(weeks=1)
_LONGEST_RUN = timedelta(hours=6)  # a run that begins this close to a freeze might deploy within it


@dataclass(frozen=True)
class Team:
    """A team, by its path, and the keys of the projects that it works on."""

    path: str
    projects: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """Weeks are counted back from the one in which the world's clock starts, which is 0. They begin on Monday, UTC.

    Attributes:
        weeks: pull requests were opened in so many weeks, four times as many in the last as in the first.
        slow_repository: name of a repository whose pull requests wait days for a review.
        broken_builds_week: most runs of pipelines failed.
        reverts_week: much of what was merged was reverted within days.
        assistants_since: commits name an AI assistant, more of them from week to week.
        assistants_share: of the pull requests of week 0, those whose commits name one.
        reviewer: name of the AI account that comments on most pull requests within minutes.
        reviewer_since: its first week.
        freeze_weeks: nothing was deployed to Production.
        holiday_week: little was opened, reviewed or merged.
    """

    teams: tuple[Team, ...] = (
        Team("Engineering/Payments", ("PAY",)),
        Team("Engineering/Platform", ("OPS",)),
        Team("Engineering/Storefront", ("WEB", "DATA")),
    )
    weeks: int = 56
    slow_repository: str = "legacy-checkout"
    broken_builds_week: int = 20
    reverts_week: int = 19
    assistants_since: int = 22
    assistants_share: float = 0.55
    reviewer: str = "Rovo Dev"
    reviewer_since: int = 13
    freeze_weeks: tuple[int, ...] = (9, 8)
    holiday_week: int = 4


TRAILERS = (
    "Co-Authored-By: Claude <noreply@anthropic.com>",
    "Co-authored-by: Copilot <223556219+Copilot@users.noreply.github.com>",
    "Co-authored-by: Cursor <cursoragent@cursor.com>",
)


class Plot:
    """The story by the time of the world: what is likely at each moment. `now`: when the world's clock starts."""

    def __init__(self, story: Story, now: datetime) -> None:
        self.story, self._now = story, now
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self._this_week = midnight - timedelta(days=now.weekday())

    def weeks_ago(self, at: datetime) -> int:
        return -((at - self._this_week) // _WEEK)

    def is_slow(self, repository: str) -> bool:
        return repository == self.story.slow_repository

    def is_frozen(self, at: datetime) -> bool:
        """Whether a run that begins now stops before Production."""
        return bool({self.weeks_ago(at), self.weeks_ago(at + _LONGEST_RUN)} & set(self.story.freeze_weeks))

    @property
    def thaw(self) -> datetime:
        """The end of the freeze."""
        return self._this_week - (min(self.story.freeze_weeks) - 1) * _WEEK

    def is_holiday(self, at: datetime) -> bool:
        return self.weeks_ago(at) == self.story.holiday_week

    def has_reviewer(self, at: datetime) -> bool:
        return self.weeks_ago(at) <= self.story.reviewer_since

    def is_forgotten(self, opened: datetime) -> bool:
        """Whether nothing happens any more to a pull request that was opened then and is still open.

        Merged in week 0, a few such would hide all other durations in a chart.
        """
        return self.weeks_ago(opened) > 3

    def opening(self, rng: Random) -> datetime:
        """When a pull request is opened: the rate grows evenly, from 0.4 of its average to 1.6."""
        for _ in range(3):
            fraction = (math.sqrt(0.16 + 2.4 * rng.random()) - 0.4) / 1.2
            before = (1 - fraction) * self.story.weeks * _WEEK
            at = self._now - timedelta(seconds=1, microseconds=before // timedelta(microseconds=1))
            if not self.is_holiday(at) or rng.random() < 0.3:
                break
        return at

    def after_holiday(self, rng: Random, at: datetime) -> datetime:
        """When something planned for `at` happens: most of it waits for the end of a holiday."""
        return at + _WEEK if self.is_holiday(at) and rng.random() < 0.5 else at

    def is_reverted(self, rng: Random, merged: datetime) -> bool:
        return rng.random() < (0.5 if self.weeks_ago(merged) == self.story.reverts_week else 0.015)

    def result(self, rng: Random, at: datetime) -> str:
        """The result of a run of a pipeline."""
        week, chance = self.weeks_ago(at), rng.random()
        failing = {self.story.broken_builds_week: 0.6, self.story.reverts_week: 0.3}.get(week, 0.08)
        return "FAILED" if chance < failing else "STOPPED" if chance > 0.98 else "SUCCESSFUL"

    def trailer(self, rng: Random, at: datetime) -> str:
        """What an AI assistant adds to the messages of commits that it helped with; empty where none did."""
        since = self.story.assistants_since
        grown = min((since - self.weeks_ago(at)) / since, 1)
        if rng.random() >= self.story.assistants_share * grown:
            return ""
        return f"\n{TRAILERS[int(rng.random() ** 2 * len(TRAILERS))]}\n"

    def author(self, rng: Random, project: str, author: User | None, members: list[User]) -> User | None:
        """Mostly a member of the team that works on the project, in place of a random one."""
        team = next((n for n, team in enumerate(self.story.teams) if project in team.projects), None)
        if team is None or author not in members or rng.random() < 0.15:
            return author
        those = members[team :: len(self.story.teams)]
        return those[int(rng.random() ** 1.7 * len(those))] if those else author


def people_file(story: Story, members: Iterable[User]) -> str:
    """The people file of the members with their teams."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["email", "name", "team"])
    for number, member in enumerate(members):
        writer.writerow([member.email, member.display_name, story.teams[number % len(story.teams)].path])
    return text.getvalue()
