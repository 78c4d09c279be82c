"""`deployments`: one row for each deployment of Bitbucket Pipelines that has ended.

One that runs again has no row until it has ended again, then the same number as before.
"""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.insights.unified import attribution
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, unified

DEPLOYMENTS = Derivation(
    unified.deployments,
    {
        "id": "n.id",
        "reference_id": "t.source_id",
        "service_id": "x.id",
        "repository": "w.slug || '/' || r.slug",
        "commit_sha": "t.commit_sha",
        "environment": "CASE WHEN lower(e.type) = 'production' THEN 'production' ELSE e.name END",
        "deployed_at": "t.completed_at",
        "success": "t.status = 'SUCCESSFUL'",
        "service": "COALESCE(r.name, r.slug, r.source_id)",
        "source_url": "t.source_url",
        "source_name": "'Bitbucket Pipelines'",
        "source": "'bitbucket'",
        "source_table_id": "t.id",
        "deleted": "r.deleted_at IS NOT NULL",
    },
    SQL("""
        FROM changed_deployments c JOIN bitbucket_deployments t USING (id)
        JOIN deployment_ids n ON n.source_table_id = t.id
        JOIN bitbucket_repositories r ON r.id = t.repository_id
        JOIN bitbucket_workspaces w ON w.id = r.workspace_id
        LEFT JOIN bitbucket_environments e ON e.id = t.environment_id
        LEFT JOIN repos x ON x.source_table_id = r.id
        WHERE t.state = 'COMPLETED'"""),
    {
        "t": bitbucket.deployments,
        "n": {"id": ()},
        "r": bitbucket.repositories,
        "w": bitbucket.workspaces,
        "e": bitbucket.environments,
        "x": unified.repos,
    },
    order="n.id",
    noted_as="deployments",
)

_OF_WORKSPACE = SQL("""
    INSERT INTO changed_deployments SELECT t.id FROM bitbucket_deployments t
    JOIN bitbucket_repositories r ON r.id = t.repository_id WHERE r.workspace_id = %(workspace)s""")
_CHANGED = SQL("""
    WITH changed AS MATERIALIZED (SELECT kind, id FROM changed_rows WHERE changed_in >= %(since)s),
    found AS (
        SELECT id FROM changed WHERE kind = 'deployment'
        UNION SELECT t.id FROM changed c JOIN bitbucket_deployments t ON t.repository_id = c.id
        WHERE c.kind = 'repository'
        UNION SELECT t.id FROM changed c JOIN bitbucket_environments e USING (id)
        JOIN bitbucket_deployments t ON t.repository_id = e.repository_id AND t.environment_id = e.id
        WHERE c.kind = 'environment')
    INSERT INTO changed_deployments
    SELECT f.id FROM found f LEFT JOIN bitbucket_deployments t USING (id)
    LEFT JOIN bitbucket_repositories r ON r.id = t.repository_id
    WHERE t.id IS NULL OR r.workspace_id = %(workspace)s""")
_DELETE_RUNNING = SQL("""
    WITH gone AS (
        DELETE FROM deployments d USING changed_deployments c LEFT JOIN bitbucket_deployments t USING (id)
        WHERE d.source_table_id = c.id AND t.state IS DISTINCT FROM 'COMPLETED' RETURNING d.id)
    DELETE FROM deployment_pull_requests a USING gone WHERE a.deployment_id = gone.id""")
_NUMBER = SQL("""
    INSERT INTO deployment_ids (source_table_id)
    SELECT t.id FROM changed_deployments c JOIN bitbucket_deployments t USING (id)
    WHERE t.state = 'COMPLETED' AND NOT EXISTS (SELECT FROM deployment_ids n WHERE n.source_table_id = t.id)
    ORDER BY t.completed_at, t.id
    ON CONFLICT DO NOTHING""")
# Where the same commit is deployed again and again, what comes next is the next other one.
_ROLLED_BACK = SQL("""
    WITH touched AS (
        SELECT DISTINCT t.repository_id FROM changed_deployments c JOIN bitbucket_deployments t USING (id)),
    those AS MATERIALIZED (
        SELECT d.id, d.success, d.rolled_back_at, t.repository_id, t.environment_id,
               left(d.commit_sha, {short}) AS sha, COALESCE(t.completed_at, t.updated_at, t.started_at) AS at,
               row_number() OVER (
                   PARTITION BY t.repository_id, t.environment_id
                   ORDER BY COALESCE(t.completed_at, t.updated_at, t.started_at), t.started_at, t.id) AS place
        FROM touched JOIN bitbucket_deployments t USING (repository_id)
        JOIN deployments d ON d.source_table_id = t.id),
    ended AS (
        SELECT *, lag(sha) OVER following IS DISTINCT FROM sha AS begins
        FROM those WHERE success AND sha IS NOT NULL
        WINDOW following AS (PARTITION BY repository_id, environment_id ORDER BY place)),
    numbered AS (
        SELECT *, count(*) FILTER (WHERE begins) OVER (
                      PARTITION BY repository_id, environment_id ORDER BY place) AS stay FROM ended),
    stays AS (
        SELECT repository_id, environment_id, stay, sha, min(at) AS at,
               min(stay) OVER (PARTITION BY repository_id, environment_id, sha) AS first_stay
        FROM numbered GROUP BY repository_id, environment_id, stay, sha),
    rolled AS (
        SELECT n.id, next.at FROM numbered n JOIN stays next
        ON next.repository_id = n.repository_id AND next.environment_id IS NOT DISTINCT FROM n.environment_id
            AND next.stay = n.stay + 1 AND next.first_stay < n.stay)
    UPDATE deployments old SET rolled_back_at = rolled.at
    FROM those LEFT JOIN rolled USING (id)
    WHERE old.id = those.id AND those.rolled_back_at IS DISTINCT FROM rolled.at
    RETURNING NOT EXISTS (SELECT FROM changed_deployments c WHERE c.id = old.source_table_id) AS others""").format(
    short=attribution.SHORT_HASH
)


async def _build(transaction: Transaction, scope: Scope) -> None:
    await transaction.execute("CREATE TEMPORARY TABLE changed_deployments (id uuid PRIMARY KEY) ON COMMIT DROP")
    await transaction.execute(_OF_WORKSPACE if scope.everything else _CHANGED, scope.bound)
    await transaction.execute("ANALYZE changed_deployments")
    await transaction.execute(_DELETE_RUNNING)
    await attribution.forget_other_commits(transaction)
    await transaction.execute(_NUMBER)
    await derive(transaction, DEPLOYMENTS, scope.bound)
    rolled_back = await transaction.rows(_ROLLED_BACK)
    transaction.count(str(unified.deployments.name), updated=sum(row.others for row in rolled_back))
    await attribution.attribute(transaction, scope)


BUILD = Build(
    "unified/deployments",
    unified.deployments,
    after=(
        "bitbucket/repositories",
        "bitbucket/pullrequests",
        "bitbucket/commits",
        "bitbucket/deployments",
        "unified/repos",
        "unified/pull_requests",
    ),
    derivations=(DEPLOYMENTS, attribution.ATTRIBUTED),
    work=_build,
    rules="2",
    stated={"rolled_back_at": ("bitbucket_deployments.commit_sha", "bitbucket_deployments.completed_at")},
)
