"""`repos`: one row for each repository. They are few, so each build compares them all."""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, unified

REPOS = Derivation(
    unified.repos,
    {
        "default_branch": "r.default_branch",
        "external_id": "r.source_id",
        "name": "r.name",
        "organization": "w.slug",
        "source": "'bitbucket'",
        "source_table_id": "r.id",
        "api_accessible": "r.api_accessible",
        "deleted": "r.deleted_at IS NOT NULL",
    },
    SQL("""FROM bitbucket_repositories r JOIN bitbucket_workspaces w ON w.id = r.workspace_id
           WHERE r.workspace_id = %(workspace)s"""),
    {"r": bitbucket.repositories, "w": bitbucket.workspaces},
    order="r.created_at, r.id",
)


async def _build(transaction: Transaction, scope: Scope) -> None:
    await derive(transaction, REPOS, scope.bound)


BUILD = Build("unified/repos", unified.repos, after=("bitbucket/repositories",), derivations=(REPOS,), work=_build)
