"""Settings of a made-up workspace, and of the API where its behaviour is not established."""

from dataclasses import dataclass
from datetime import UTC, datetime

from dx_dagster.sandbox.story import Story

FIRST_NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


# Something happened in a tenth of the repositories in the last week, and in half of them nothing for 90 days.
TYPICAL_SILENCE = (1.0, 3.0, 5.0, *range(10, 90, 7), *range(100, 350, 17))
"""`WorldConfig.silent_days` of a typical workspace."""


@dataclass(frozen=True)
class WorldConfig:
    """Two worlds of the same configuration are the same, byte for byte, as long as `now` is an instant.

    Attributes:
        repositories: all of them, the empty, the forbidden and the fork included.
        pull_requests: those that exist; a few more were opened and deleted, which leaves gaps in the numbers.
        now: where the world's clock starts; None is this moment.
        forbidden_repositories: listed, but 403 for everything under them.
        feed_shows_deleted: deleted comments stay in the activity feed, with `deleted` true and no content.
        count_includes_deleted: `comment_count` counts deleted comments too.
        approvals_move_updated_on: giving or taking back an approval or a change request moves `updated_on`.
        feed_keeps_taken_back: an approval that was taken back stays in the activity feed.
        merges_by_push: the chance that a merge is made by pushing the source to the target: no entry of the activity
            says so.
        silent_days: since how long nothing has happened in each repository, in turn; none for all of them busy.
        failed_steps_run_again: `step` runs failed steps again now and then. A list of what is new shows nothing of it.
        deployments_shown_early: a run that goes on shows a deployment in progress. No delivery says so.
        deployments_order: how deployments are listed, which is not documented: newest release first (`created`),
            latest change first (`updated`), or oldest release first (`oldest`).
        into_other_branches: the share of pull requests into long-lived branches beside the default one; None for about
            one in twenty, into release branches only.
        story: what happened week by week, for charts; None for a past in which all weeks are alike.
        commits_outlive_branch: a closed pull request lists its commits although its source branch is gone.
    """

    workspace: str = "acme"
    seed: int = 7
    repositories: int = 40
    pull_requests: int = 2000
    members: int = 30
    now: datetime | None = FIRST_NOW
    forbidden_repositories: int = 1
    feed_shows_deleted: bool = True
    count_includes_deleted: bool = False
    approvals_move_updated_on: bool = False
    feed_keeps_taken_back: bool = True
    merges_by_push: float = 0.0
    silent_days: tuple[float, ...] = ()
    failed_steps_run_again: bool = False
    deployments_shown_early: bool = False
    deployments_order: str = "created"
    into_other_branches: float | None = None
    commits_outlive_branch: bool = True
    story: Story | None = None
