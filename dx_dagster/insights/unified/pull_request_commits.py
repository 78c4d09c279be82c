"""`pull_request_commits`: one row for each commit of a pull request."""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope, add_pulls_of_commit_authors, find_pulls
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, people, unified

COMMITS = Derivation(
    unified.pull_request_commits,
    {
        "sha": "k.sha",
        "created": "k.created",
        "message": "k.message",
        "dx_user_id": "i.dx_user_id",
        "external_id": "k.sha",
        "external_url": "k.source_url",
        "pull_request_id": "t.id",
        "repo_id": "t.repo_id",
        "source": "'bitbucket'",
        "source_table_id": "k.id",
        "source_table_pull_id": "k.pull_id",
        "source_table_repo_id": "t.source_table_repo_id",
        "bot_authored": "COALESCE(u.type <> 'human', false)",
        "deleted": "k.deleted OR t.deleted",
    },
    SQL("""FROM changed_pulls c JOIN pull_requests t ON t.source_table_id = c.id
           JOIN bitbucket_pull_commits k ON k.pull_id = c.id
           LEFT JOIN bitbucket_users u ON u.id = k.author_id
           LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = k.author_id"""),
    {
        "k": bitbucket.pull_commits,
        "t": unified.pull_requests,
        "u": bitbucket.users,
        "i": people.identities,
    },
)

_VANISHED = """
    DELETE FROM pull_request_commits t USING changed_pulls c, pull_requests p
    WHERE p.source_table_id = c.id AND t.pull_request_id = p.id
    AND NOT EXISTS (SELECT FROM bitbucket_pull_commits k WHERE k.id = t.source_table_id)"""


async def _build(transaction: Transaction, scope: Scope) -> None:
    await find_pulls(transaction, scope)
    await add_pulls_of_commit_authors(transaction, scope)
    await transaction.execute(_VANISHED)
    await derive(transaction, COMMITS, scope.bound)


BUILD = Build(
    "unified/pull_request_commits",
    unified.pull_request_commits,
    after=("bitbucket/members", "bitbucket/commits", "unified/pull_requests", "unified/identities"),
    derivations=(COMMITS,),
    work=_build,
)
