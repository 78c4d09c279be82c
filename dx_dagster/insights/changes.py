"""What changed since an asset was last built, counted in transactions and not by any clock.

Triggers note in `changed_rows` the transaction that last changed each pull request, pipeline and so on. A build notes
the oldest transaction that was under way when it began: every change that it did not see belongs to that one or a
later one. So the next build looks at some changes twice, and misses none.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL

from dx_dagster.warehouse.database import Transaction

# Numbers of transactions begin again in a restored database: then a mark lies ahead of them, and everything is built.
_NOW = "SELECT pg_snapshot_xmin(s)::text::bigint AS oldest, pg_snapshot_xmax(s)::text::bigint AS next "
_NOW += "FROM pg_current_snapshot() s"
_MARK = "SELECT built_to, rules FROM build_marks WHERE workspace_id = %s AND asset = %s"
_SET_MARK = """
    INSERT INTO build_marks (workspace_id, asset, built_to, rules) VALUES (%s, %s, %s, %s)
    ON CONFLICT (workspace_id, asset) DO UPDATE SET built_to = EXCLUDED.built_to, rules = EXCLUDED.rules"""
# A unified table that was never built lets nothing pass. Imported tables have no marks. Those of people do not count:
# what their builds change is noted as a change of the accounts.
_BUILT_BEFORE = """
    SELECT min(COALESCE(m.built_to, 0)) AS built_to FROM unnest(%s::text[]) a (asset)
    LEFT JOIN build_marks m ON m.asset = a.asset AND m.workspace_id = %s
    WHERE (m.built_to IS NOT NULL OR a.asset LIKE 'unified/%%')
      AND a.asset NOT LIKE 'unified/dx\\_%%' AND a.asset <> 'unified/identities'"""
_RENUMBER = "UPDATE changed_rows SET changed_in = %(next)s WHERE changed_in > %(next)s"


@dataclass(frozen=True)
class Scope:
    """What one build looks at.

    Attributes:
        workspace_id: id of the workspace.
        everything: whether all its rows are built; otherwise what changed in `since` or later.
        since: number of a transaction; 0 with `everything`.
        built_to: what `since` of the next build will be.
        settings: text of the settings that change rows.
    """

    workspace_id: str
    everything: bool
    since: int
    built_to: int
    settings: str = ""

    @property
    def bound(self) -> dict[str, Any]:
        """Parameters for statements."""
        return {"workspace": self.workspace_id, "everything": self.everything, "since": self.since}


async def begin(
    transaction: Transaction,
    workspace_id: str,
    asset: str,
    rules: str,
    *,
    full: bool,
    after: Collection[str] = (),
) -> Scope:
    """The scope of a build. Another build of the same asset waits until this transaction ends.

    `after`: assets that the build reads. What they have not seen yet, the next build looks at again.
    `rules`: version of the rules, and settings that change rows. When they differ from the last build's, everything is
    built.
    """
    await transaction.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{asset} {workspace_id}"])
    # Before anything else is read: what later statements see besides, the next build sees again.
    now = await transaction.row(_NOW)
    mark = await transaction.row(_MARK, [workspace_id, asset])
    if mark is not None and mark.built_to > now.next:
        await transaction.execute(_RENUMBER, {"next": now.next})
        mark = None
    # 0: an asset that it reads was never built by then. `changed_rows` lacks what was imported before it existed.
    everything = full or mark is None or mark.built_to == 0 or mark.rules != rules
    before = await transaction.row(_BUILT_BEFORE, [list(after), workspace_id])
    built_to = now.oldest if before.built_to is None else min(now.oldest, before.built_to)
    return Scope(workspace_id, everything, 0 if everything else mark.built_to, built_to)


async def finish(transaction: Transaction, asset: str, rules: str, scope: Scope) -> None:
    """Notes how far the asset is built."""
    await transaction.execute(_SET_MARK, [scope.workspace_id, asset, scope.built_to, rules])


_OF_WORKSPACE = SQL("""
    INSERT INTO changed_pulls SELECT p.id FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
    WHERE r.workspace_id = %(workspace)s""")
# Of a user that changed: all pull requests that name the account in a column or in a review. Each is looked up by its
# key (LATERAL and OFFSET): PostgreSQL knows too little of `found`, and would read all pull requests.
_CHANGED = SQL("""
    WITH changed AS MATERIALIZED (SELECT kind, id FROM changed_rows WHERE changed_in >= %(since)s),
    users AS MATERIALIZED (
        SELECT u.id FROM changed c JOIN bitbucket_users u USING (id)
        WHERE c.kind = 'user' AND u.workspace_id = %(workspace)s),
    found AS (
        SELECT id FROM changed WHERE kind = ANY(%(kinds)s)
        {of_workspaces}
        UNION SELECT p.id FROM changed c JOIN bitbucket_pulls p ON p.repository_id = c.id WHERE c.kind = 'repository'
        UNION SELECT p.id FROM users u JOIN bitbucket_pulls p ON p.user_id = u.id
        UNION SELECT p.id FROM users u JOIN bitbucket_pulls p ON p.merged_by_user_id = u.id
        UNION SELECT o.pull_id FROM users u JOIN bitbucket_pull_participants o ON o.user_id = u.id
        UNION SELECT c.pull_id FROM users u JOIN bitbucket_pull_comments c ON c.user_id = u.id
        UNION SELECT v.pull_id FROM users u JOIN bitbucket_reviews v ON v.user_id = u.id)
    INSERT INTO changed_pulls
    SELECT f.id FROM found f LEFT JOIN LATERAL (
        SELECT p.id, r.workspace_id FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
        WHERE p.id = f.id OFFSET 0) p ON true
    WHERE p.id IS NULL OR p.workspace_id = %(workspace)s""")
_ALL_CHANGED = """
    SELECT FROM changed_rows WHERE changed_in >= %(since)s AND kind = ANY(%(kinds)s) AND id = %(workspace)s"""
_OF_ALL = SQL("""
        UNION SELECT p.id FROM bitbucket_repositories r JOIN bitbucket_pulls p ON p.repository_id = r.id
        WHERE r.workspace_id = %(workspace)s""")
_OF_COMMIT_AUTHORS = """
    INSERT INTO changed_pulls
    SELECT k.pull_id FROM changed_rows c JOIN bitbucket_users u USING (id)
    JOIN bitbucket_pull_commits k ON k.author_id = u.id
    WHERE c.kind = 'user' AND c.changed_in >= %(since)s AND u.workspace_id = %(workspace)s
    ON CONFLICT DO NOTHING"""


async def find_pulls(transaction: Transaction, scope: Scope, kinds: Collection[str] = ("pull",)) -> int:
    """Fills the temporary table `changed_pulls` (id) with the pull requests to build; returns their number.

    It includes pull requests that no longer have a row, of whatever workspace. `kinds`: those kinds of `changed_rows`
    whose id is a pull request's, or a workspace's of which all changed: `review` for rows of `bitbucket_reviews`,
    and names of derived tables.
    """
    await transaction.execute("CREATE TEMPORARY TABLE changed_pulls (id uuid NOT NULL) ON COMMIT DROP")
    bound = scope.bound | {"kinds": list(kinds)}
    all_changed = not scope.everything and await transaction.row(_ALL_CHANGED, bound) is not None
    changed = _CHANGED.format(of_workspaces=_OF_ALL if all_changed else SQL(""))
    found = await transaction.execute(_OF_WORKSPACE if scope.everything else changed, bound)
    await transaction.execute("ALTER TABLE changed_pulls ADD PRIMARY KEY (id)")
    await transaction.execute("ANALYZE changed_pulls")
    return found


async def add_pulls_of_commit_authors(transaction: Transaction, scope: Scope) -> int:
    """Adds to `changed_pulls` those with commits of users that changed; returns their number.

    A build of everything has them already.
    """
    return 0 if scope.everything else await transaction.execute(_OF_COMMIT_AUTHORS, scope.bound)
