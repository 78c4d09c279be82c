"""What happens in a made-up world in a simulated day, when it should be seen, and when it is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

import psycopg

from benchmarks.simulated import Installation, Sync, now
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.world import World

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SHARE = 0.05
_BETWEEN_SYNCS = timedelta(minutes=65)  # an hour, and the next tick of the schedule


def last_change(repository: HostedRepository) -> datetime:
    """When something last happened in a repository."""
    pulls = (pull.updated_on for pull in repository.pull_requests.values())
    runs = (run.completed_on or run.created_on for run in repository.pipelines)
    return max((repository.updated_on, *pulls, *runs))


def bound(silence: timedelta) -> timedelta:
    """How late a change may be seen after so long a silence."""
    return max(HOUR, min(SHARE * silence, DAY))


@dataclass
class Happening:
    """A new pull request or comment, with a pipeline. `silence` is the time in which nothing happened before.

    Attributes:
        seen: how long after it each installation had it, by name.
    """

    at: datetime
    repository: HostedRepository
    silence: timedelta
    number: int = 0
    seen: dict[str, timedelta] = field(default_factory=dict)


class Day:
    """Changes as often as the past has them: where nothing happened for n days, one in n days on average."""

    def __init__(self, world: World, begin: datetime, length: timedelta = DAY) -> None:
        self.world, self.begin, self.made = world, begin, list[Happening]()
        self._chances = Random(20)  # noqa: S311 - a made-up day
        self.last = {repository.uuid: last_change(repository) for repository in world.repositories}
        self.plan = sorted(self._drawn(length), key=lambda one: one[0])

    def _drawn(self, length: timedelta) -> Iterator[tuple[datetime, Callable[[], None]]]:
        for repository in self.world.open_repositories:
            mean, moment = max(HOUR, self.begin - self.last[repository.uuid]), self.begin
            while (moment := moment + self._chances.expovariate(1) * mean) < self.begin + length:
                yield moment, lambda repository=repository: self._happen(repository)  # type: ignore[misc]

    def _happen(self, repository: HostedRepository) -> None:
        world = self.world
        with world.lock:
            opened = [one for one in repository.pull_requests.values() if one.state == "OPEN"]
            pull = opened[-1] if opened and self._chances.random() < 0.5 else world.open_pull_request(repository)  # noqa: PLR2004 - as often
            if opened and pull is opened[-1]:
                world.comment(pull)
            if repository.has_pipelines:
                world.finish_pipeline(world.add_pipeline(repository), "SUCCESSFUL")
            at = now()
            before = max(
                (one.at for one in self.made if one.repository is repository), default=self.last[repository.uuid]
            )
            self.made.append(Happening(at, repository, at - before, pull.number))

    def look(self, installation: Installation) -> None:
        """Notes what the installation has since its last sync."""
        for one in self.made:
            if installation.name not in one.seen and self._has(installation, one):
                one.seen[installation.name] = now() - one.at

    def _has(self, installation: Installation, one: Happening) -> bool:
        with psycopg.connect(installation.database_url) as connection:
            row = connection.execute(
                "SELECT FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id "
                "WHERE r.source_id = %s AND p.source_id = %s AND p.updated_at >= %s",
                [one.repository.uuid, one.number, one.at - timedelta(seconds=5)],
            ).fetchone()
        return row is not None

    def latest(self, name: str) -> float:
        """The largest share of its bound that a change was seen after; those that are not seen yet count as of now."""
        return max(
            ((one.seen.get(name) or now() - one.at) / max(bound(one.silence), _BETWEEN_SYNCS) for one in self.made),
            default=0.0,
        )

    def least_asked(self, first_asked: datetime, syncs: Sequence[Sync]) -> int:
        """How often syncs at these times must ask a repository, all together, if they ask at the last moment allowed.

        The next change may come at any moment: a repository must be asked in a sync if the next one is too late.
        """
        begins = [sync.began for sync in syncs]
        return sum(self._least_asked(repository, first_asked, begins) for repository in self.world.repositories)

    def _least_asked(self, repository: HostedRepository, asked: datetime, begins: Sequence[datetime]) -> int:
        changed, count = self.last[repository.uuid], 0
        happened = [one.at for one in self.made if one.repository is repository]
        for begin, following in zip(begins, [*begins[1:], begins[-1] + _BETWEEN_SYNCS], strict=True):
            if following - asked > bound(asked - changed):
                count, asked = count + 1, begin
                changed = max([changed, *(moment for moment in happened if moment <= begin)])
        return count
