"""`pipeline_runs`: one row for each run of Bitbucket Pipelines."""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.insights.people import resolving
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, people, unified

# A run that waits for a manual step is IN_PROGRESS with the stage PAUSED; Bitbucket's own pages show it as successful.
# One that ran out of build minutes has the stage HALTED: it has not ended, so it is running.
_STATUS = """CASE
    WHEN t.result = 'SUCCESSFUL' THEN 'success'
    WHEN t.result IN ('FAILED', 'ERROR', 'EXPIRED') THEN 'failure'
    WHEN t.result = 'STOPPED' THEN 'cancelled'
    WHEN t.result IS NOT NULL THEN 'unknown'
    WHEN t.state IN ('IN_PROGRESS', 'PAUSED') AND 'PAUSED' IN (t.stage, t.state) THEN 'success'
    WHEN t.state IN ('PENDING', 'PARSING', 'BUILDING', 'HALTED', 'IN_PROGRESS') THEN 'running'
    ELSE 'unknown' END"""

RUNS = Derivation(
    unified.pipeline_runs,
    {
        "reference_id": "t.id::text",
        "source_id": "t.source_id",
        "pipeline_source_id": "s.id",
        "name": "COALESCE(r.name, r.slug, r.source_id)",
        "status": _STATUS,
        "started_at": "t.created_at",
        "finished_at": "t.completed_at",
        "updated_at": "COALESCE(t.completed_at, t.created_at)",
        "duration": "t.duration",
        "repository": "w.slug || '/' || r.slug",
        "commit_sha": "t.commit_sha",
        "head_branch": "t.ref_name",
        "pr_number": "p.source_id",
        "pull_id": "q.id",
        "dx_user_id": "i.dx_user_id",
        "email": "d.email",
        "source_url": "t.source_url",
        "source": "'bitbucket'",
        "source_table_id": "t.id",
        "repo_id": "x.id",
        "deleted": "r.deleted_at IS NOT NULL",
    },
    SQL("""
        FROM changed_pipelines c JOIN bitbucket_pipelines t USING (id)
        JOIN bitbucket_repositories r ON r.id = t.repository_id
        JOIN bitbucket_workspaces w ON w.id = r.workspace_id
        JOIN pipeline_sources s ON s.source_table_id = r.id
        LEFT JOIN repos x ON x.source_table_id = r.id
        LEFT JOIN bitbucket_pulls p ON p.id = t.pull_id
        LEFT JOIN pull_requests q ON q.source_table_id = t.pull_id
        LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = t.user_id
        LEFT JOIN dx_users d ON d.id = i.dx_user_id"""),
    {
        "t": bitbucket.pipelines,
        "r": bitbucket.repositories,
        "w": bitbucket.workspaces,
        "s": unified.pipeline_sources,
        "x": unified.repos,
        "p": bitbucket.pulls,
        "q": unified.pull_requests,
        "i": people.identities,
        "d": people.users,
    },
    order="t.created_at, t.id",
    noted_as="pipeline_runs",
)

_OF_WORKSPACE = SQL("""
    INSERT INTO changed_pipelines SELECT t.id FROM bitbucket_pipelines t
    JOIN bitbucket_repositories r ON r.id = t.repository_id WHERE r.workspace_id = %(workspace)s""")
_CHANGED = SQL("""
    WITH changed AS MATERIALIZED (SELECT kind, id FROM changed_rows WHERE changed_in >= %(since)s),
    found AS (
        SELECT id FROM changed WHERE kind = 'pipeline'
        UNION SELECT t.id FROM changed c JOIN bitbucket_pipelines t ON t.repository_id = c.id
        WHERE c.kind = 'repository'
        UNION SELECT t.id FROM changed c JOIN bitbucket_pipelines t ON t.pull_id = c.id WHERE c.kind = 'pull'
        UNION SELECT t.id FROM changed c JOIN bitbucket_pipelines t ON t.user_id = c.id WHERE c.kind = 'user')
    INSERT INTO changed_pipelines
    SELECT f.id FROM found f LEFT JOIN bitbucket_pipelines t USING (id)
    LEFT JOIN bitbucket_repositories r ON r.id = t.repository_id
    WHERE t.id IS NULL OR r.workspace_id = %(workspace)s""")
_DELETE_GONE = SQL("""
    DELETE FROM pipeline_runs gone USING changed_pipelines c
    WHERE gone.source_table_id = c.id AND NOT EXISTS (SELECT FROM bitbucket_pipelines t WHERE t.id = c.id)""")

# People are built without waiting for pipelines. A run may name an account that nothing else does.
_STRANGERS = """
    SELECT DISTINCT t.user_id::text AS id FROM changed_pipelines c JOIN bitbucket_pipelines t USING (id)
    WHERE t.user_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM identities i WHERE i.source = 'bitbucket' AND i.source_id = t.user_id)"""


async def _build(transaction: Transaction, scope: Scope) -> None:
    await transaction.execute("CREATE TEMPORARY TABLE changed_pipelines (id uuid PRIMARY KEY) ON COMMIT DROP")
    await transaction.execute(_OF_WORKSPACE if scope.everything else _CHANGED, scope.bound)
    await transaction.execute("ANALYZE changed_pipelines")
    await transaction.execute(_DELETE_GONE)
    if strangers := await transaction.rows(_STRANGERS):
        await resolving.resolve(transaction, [row.id for row in strangers])
    await derive(transaction, RUNS, scope.bound)


BUILD = Build(
    "unified/pipeline_runs",
    unified.pipeline_runs,
    after=(
        "bitbucket/repositories",
        "bitbucket/pullrequests",
        "bitbucket/pipelines",
        "unified/repos",
        "unified/pull_requests",
        "unified/identities",
        "unified/dx_users",
        "unified/pipeline_sources",
    ),
    derivations=(RUNS,),
    work=_build,
)
