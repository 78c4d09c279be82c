"""Measures: durations, counts and flags of each pull request, and figures of each week.

Of durations in business hours the columns end in `_business_hours`. A count stands beside each figure, so that one over
few rows is recognisable.
"""

from collections.abc import Iterator

from sqlalchemy import BigInteger, Column, Date, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION

from dx_dagster.warehouse.schema.columns import flag, metadata, number, reference, seconds, time

FEW = 5
"""A figure over fewer rows than this says little."""

DURATIONS = {
    "coding_time": "from the first commit to the opening",
    "pickup_time": "from ready for review, else the opening, to the first review by another person",
    "review_time": "from that review to the merge",
    "deploy_time": "from the merge to the first successful deployment to production",
    "cycle_time": "from ready for review, else the opening, to the merge",
    "lead_time": "from the first commit to the first successful deployment to production",
}
"""The durations of a pull request, by column. Each has a second column with `BUSINESS_HOURS` after its name."""

BUSINESS_HOURS = "_business_hours"
PERCENTILES = {"median": 0.5, "p75": 0.75, "p90": 0.9}


def _durations() -> Iterator[Column[object]]:
    whose = {
        "pickup_time": "the reviewer's business hours",
        "deploy_time": "business hours in DX_TIME_ZONE",
        "lead_time": "business hours in DX_TIME_ZONE",
    }
    for name, meaning in DURATIONS.items():
        yield seconds(name, f"Seconds {meaning}")
        hours = whose.get(name, "the author's business hours")
        yield seconds(f"{name}{BUSINESS_HOURS}", f"Likewise, within {hours}")


pull_request_measures = Table(
    "pull_request_measures",
    metadata,
    Column("pull_request_id", BigInteger, primary_key=True, autoincrement=False, comment="pull_requests.id"),
    number("repo_id", "repos.id", nullable=False),
    number("dx_user_id", "Author, dx_users.id"),
    flag("bot_authored", "Whether the author is no person; false where the account is gone", default=False),
    time("merged", "When it was merged"),
    Column("week", Date, comment="Monday of the week of the merge, in DX_TIME_ZONE"),
    time("deployed_at", "When it was first deployed to production with success"),
    *_durations(),
    Column(
        "comment_count",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Comments by people other than the author until the end: the depth of its review",
    ),
    Column(
        "review_count",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Reviews by people other than the author until the end",
    ),
    Column(
        "reviewer_count", Integer, nullable=False, server_default=text("0"), comment="People who gave these reviews"
    ),
    flag("re_reviewed", "Whether a person reviewed it after a person's change request, until the end", default=False),
    flag("merged_without_review", "Whether it was merged, and no person reviewed it before", default=False),
    flag("reverted", "Whether a later merged pull request of the repository says that it reverts this one"),
    time("reverted_at", "When the first of these was merged"),
    number("size", "Lines added and removed; null until fetched (DX_PULL_REQUEST_SIZE)"),
    number("changed_files", "Files changed, likewise", Integer),
    flag("ai_named", "Whether a trailer of one of its commits names an AI assistant", default=False),
    flag(
        "ai_account", "Whether its author, or that of one of its commits, is an account of type ai_bot", default=False
    ),
    reference("source_table_id", "bitbucket_pulls.id", nullable=False),
    reference("source_table_repo_id", "bitbucket_repositories.id", nullable=False),
    Index("ix_pull_request_measures_source_table_id", "source_table_id", unique=True),
    Index("ix_pull_request_measures_week", "week"),
    Index("ix_pull_request_measures_deployed_at", "deployed_at"),
    comment="Measures of pull requests",
)


def _count(name: str, comment: str) -> Column[object]:
    return Column(name, Integer, nullable=False, server_default=text("0"), comment=comment)


def _share(name: str, comment: str) -> Column[object]:
    return Column(name, DOUBLE_PRECISION, comment=f"{comment}, from 0 to 1; null of none")


def _percentiles(name: str, what: str) -> Iterator[Column[object]]:
    for percentile in PERCENTILES:
        named = "Median" if percentile == "median" else f"{percentile.removeprefix('p')}th percentile"
        yield seconds(f"{name}_{percentile}", f"{named} of {what}")


def _weekly_durations() -> Iterator[Column[object]]:
    for name, meaning in DURATIONS.items():
        whose = "deployed this week" if name == "lead_time" else "merged this week"
        yield _count(f"{name}_count", f"Pull requests {whose} of which {name} is known")
        yield from _percentiles(name, f"their seconds {meaning}")
        yield from _percentiles(f"{name}{BUSINESS_HOURS}", "these durations within business hours")


weekly_measures = Table(
    "weekly_measures",
    metadata,
    Column("scope", Text, primary_key=True, comment="workspace, repository or team"),
    Column("scope_id", Text, primary_key=True, comment="bitbucket_workspaces.id, repos.id or dx_teams.id, as a text"),
    Column("week", Date, primary_key=True, comment="Monday of the week, in DX_TIME_ZONE"),
    reference("workspace_id", "bitbucket_workspaces.id; null for a team, which belongs to none"),
    number("repo_id", "repos.id of a repository"),
    number("team_id", "dx_teams.id of a team. Teams count with the teams below them, by the teams of today"),
    _count("merged_count", "Pull requests that people merged this week: the throughput"),
    _count("engineer_count", "People who opened these"),
    Column("throughput_per_engineer", DOUBLE_PRECISION, comment="Of these pull requests, for each of these people"),
    _count("bot_merged_count", "Merged pull requests of bots, which count in no other figure"),
    _share("bot_merged_share", "Their share of all merged ones"),
    *_weekly_durations(),
    _count("merged_without_review_count", "Merged pull requests that no person reviewed before"),
    _share("merged_without_review_share", "Their share of merged_count"),
    _count("re_reviewed_count", "Merged pull requests that were reviewed again after a change request"),
    _count("reverted_count", "Merged pull requests that a later one reverts"),
    _count("ai_named_count", "Merged pull requests whose commits name an AI assistant in a trailer"),
    _count("ai_account_count", "Merged pull requests, also of bots, with an account of type ai_bot as an author"),
    _count("review_count", "Reviews by people this week"),
    _count("reviewer_count", "People who gave these reviews"),
    _count("review_load_count", "People who reviewed, or opened what was merged this week"),
    _share("review_load_gini", "Gini coefficient of reviews over these people: 0 where all review as much"),
    _count("bot_review_count", "Reviews by bots, which count in no other figure"),
    _share("bot_review_share", "Their share of all reviews"),
    _count("pipeline_count", "Runs of pipelines that ended this week with success or failure; of a team, its members'"),
    _count("pipeline_failure_count", "Those that failed"),
    _share("pipeline_failure_rate", "Their share of pipeline_count"),
    _count("pipeline_duration_count", "Those of pipeline_count whose duration is known"),
    *_percentiles("pipeline_duration", "the seconds that they ran"),
    _count(
        "deployment_count", "Successful deployments to production this week; of a team, those with its pull requests"
    ),
    _count("failed_deployment_count", "Deployments to production that ended this week without success; none of a team"),
    _count("change_failure_count", "Those of deployment_count that were rolled back or reverted within 7 days"),
    _share("change_failure_rate", "Their share of deployment_count"),
    Index("ix_weekly_measures_workspace_id_week", "workspace_id", "week"),
    comment="Measures of weeks, for each workspace, repository and team. "
    f"A figure whose count is below {FEW} says little",
)
