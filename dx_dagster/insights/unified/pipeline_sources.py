"""`pipeline_sources`: one row for each repository that has runs. They are few, so each build compares them all."""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, unified

SOURCES = Derivation(
    unified.pipeline_sources,
    {
        "name": "COALESCE(r.name, r.slug, r.source_id)",
        "source": "'bitbucket'",
        "source_table_id": "r.id",
        "repo_id": "x.id",
    },
    SQL("""FROM bitbucket_repositories r LEFT JOIN repos x ON x.source_table_id = r.id
           WHERE r.workspace_id = %(workspace)s
             AND EXISTS (SELECT FROM bitbucket_pipelines t WHERE t.repository_id = r.id)"""),
    {"r": bitbucket.repositories, "x": unified.repos},
    order="r.created_at, r.id",
)


async def _build(transaction: Transaction, scope: Scope) -> None:
    await derive(transaction, SOURCES, scope.bound)


BUILD = Build(
    "unified/pipeline_sources",
    unified.pipeline_sources,
    after=("bitbucket/repositories", "bitbucket/pipelines", "unified/repos"),
    derivations=(SOURCES,),
    work=_build,
)
