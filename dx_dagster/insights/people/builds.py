"""The builds of people and teams. One resolution writes all their tables, and each build sees to it."""

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.people import resolving
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import people

# Imported rows that name accounts, and so may bring new ones. So do pipelines, but a credential that may not read them
# must not hold up everybody: the build of `pipeline_runs` resolves the accounts that it meets first.
_NAME_ACCOUNTS = tuple(f"bitbucket/{step}" for step in ("members", "pullrequests", "activity", "comments", "commits"))

USERS = Build(
    "unified/dx_users",
    people.users,
    after=("unified/dx_teams", *_NAME_ACCOUNTS),
    derivations=(),
    work=resolving.build,
    stated={
        "source_id": ("bitbucket_users.account_id", "bitbucket_users.source_id", "bitbucket_users.email"),
        "name": ("bitbucket_users.name",),
        "email": ("bitbucket_users.email",),
        "developer": ("bitbucket_users.type",),
        "type": ("bitbucket_users.type",),
        "deleted_at": ("bitbucket_users.active", "bitbucket_users.left_at"),
        "team_id": ("dx_teams.id",),
    },
)
IDENTITIES = Build(
    "unified/identities",
    people.identities,
    after=("unified/dx_users",),
    derivations=(),
    work=resolving.catch_up,
    stated={"dx_user_id": ("dx_users.id",), "source_id": ("bitbucket_users.id",)},
)
IDENTIFIERS = Build(
    "unified/dx_user_identifiers",
    people.identifiers,
    after=("unified/dx_users",),
    derivations=(),
    work=resolving.catch_up,
    stated={"user_id": ("dx_users.id",), "value": ("bitbucket_users.email",)},
)


async def _count(transaction: Transaction, _: Scope) -> None:
    await resolving.count_contributors(transaction)


# `people import` makes the teams: a build has nothing to derive them from.
TEAMS = Build("unified/dx_teams", people.teams, after=(), derivations=(), work=_count)


async def _nothing(_transaction: Transaction, _: Scope) -> None: ...


HIERARCHIES = Build(
    "unified/dx_team_hierarchies",
    people.team_hierarchies,
    after=("unified/dx_teams",),
    derivations=(),
    work=_nothing,
    stated={"ancestor_id": ("dx_teams.id",), "descendant_id": ("dx_teams.id",)},
)
