"""When pull requests were begun, reviewed, approved and closed: from their activity, comments and commits.

No duration is negative: an entry dated before the opening or after the end of its pull request is not a review of it.
"""

from collections.abc import Collection

from psycopg.sql import SQL, Composed, Identifier

from dx_dagster.warehouse.database import Transaction

RULES = 2
"""Version of these rules. `mend` derives the pull requests of a workspace again that follow older rules."""


CLOSES = SQL("(p.state <> 'OPEN' AND (a.state = p.state OR (p.state = 'SUPERSEDED' AND a.state = 'DECLINED')))")
"""SQL: whether an update `a` closed the pull request `p`."""

# A deleted account may come back with a new uuid (recorded by jenkinsci/bitbucket-branch-source-plugin).
IS_OTHER = SQL("(who.id IS DISTINCT FROM p.user_id AND (who.account_id = author.account_id) IS NOT TRUE)")
"""SQL: whether the user `who` is not the `author` of the pull request `p`."""

# An entry of the activity, or a comment, moves `updated_on` to within seconds of its own date. A merge by push is
# neither.
_EXPLAINED = SQL("""(
    EXISTS (SELECT FROM bitbucket_pull_activities a WHERE a.pull_id = p.id AND a.created_at {then})
    OR EXISTS (SELECT FROM bitbucket_pull_comments c
               WHERE c.pull_id = p.id AND (c.created_at {then} OR c.updated_at {then})))""").format(
    then=SQL("BETWEEN p.updated_at - interval '5 seconds' AND p.updated_at + interval '5 seconds'")
)

# A pull request never leaves MERGED, DECLINED or SUPERSEDED again, and later updates (a new title) repeat the state:
# the first update with it is the moment. Updates know no SUPERSEDED, says the specification: those are declined. Where
# the activity has none (a merge by push, a feed that forgot), the closing is what moved `updated_on` last, unless
# something else did; then a merge is as old as its commit, which may have been made before the pull request.
_ENDS = SQL("""
    SELECT p.id, p.user_id, p.state, p.opened_at,
           COALESCE(
               (SELECT min(a.created_at) FROM bitbucket_pull_activities a
                WHERE a.pull_id = p.id AND a.kind = 'update' AND {closes} AND a.created_at >= p.opened_at),
               CASE WHEN p.state <> 'OPEN' AND p.updated_at >= p.opened_at AND NOT {explained} THEN p.updated_at END,
               CASE WHEN p.state = 'MERGED' AND p.commit_date >= p.opened_at THEN p.commit_date END) AS closed_at
    FROM (SELECT p.*, COALESCE(p.created_at, '-infinity') AS opened_at,
                 COALESCE((SELECT c.created FROM bitbucket_repository_default_branch_commits c
                           WHERE c.repository_id = p.repository_id AND c.sha = p.merge_commit_sha),
                          p.merge_commit_date) AS commit_date
          FROM bitbucket_pulls p WHERE p.id = ANY(%(pulls)s::uuid[])) p""").format(closes=CLOSES, explained=_EXPLAINED)


def events(chosen: SQL) -> Composed:
    """SELECT of all reviews' events of pull requests; `chosen` is SQL that follows `pull_id`.

    Comments are entries of the activity too, unless Bitbucket refused that.
    """
    return SQL("""
        SELECT pull_id, user_id, kind, created_at FROM bitbucket_pull_activities
        WHERE pull_id {chosen} AND kind <> 'update'
        UNION ALL
        SELECT pull_id, user_id, 'comment', created_at FROM bitbucket_pull_comments
        WHERE pull_id {chosen}""").format(chosen=chosen)


_EVENTS = events(SQL("= ANY(%(pulls)s::uuid[])"))

_FIRSTS = SQL("""
    SELECT p.id, min(e.created_at) FILTER (WHERE who.type = 'human') AS reviewed_at,
           min(e.created_at) FILTER (WHERE who.type = 'human' AND e.kind = 'approval') AS approved_at,
           min(e.created_at) FILTER (WHERE who.type <> 'human') AS bot_reviewed_at
    FROM ends p
    JOIN events e ON e.pull_id = p.id AND e.created_at >= p.opened_at
                 AND e.created_at <= COALESCE(p.closed_at, 'infinity')
    JOIN bitbucket_users who ON who.id = e.user_id
    LEFT JOIN bitbucket_users author ON author.id = p.user_id
    WHERE {is_other}
    GROUP BY p.id""").format(is_other=IS_OTHER)

_READY = SQL("""
    SELECT min(a.created_at) FROM bitbucket_pull_activities a
    WHERE a.pull_id = p.id AND a.draft IS FALSE AND a.created_at > (
        SELECT min(d.created_at) FROM bitbucket_pull_activities d WHERE d.pull_id = p.id AND d.draft)""")

_COLUMNS = (
    *("ready_for_review", "closed_at", "merged_at", "open_to_merge", "open_to_first_review", "open_to_first_approval"),
    "open_to_first_bot_review",
)


def _seconds_to(moment: str) -> Composed:
    """SQL: seconds from the opening to the moment; null where either is unknown."""
    return SQL("EXTRACT(epoch FROM {moment} - NULLIF(p.opened_at, '-infinity'))::float8").format(moment=SQL(moment))


_DERIVE = (
    SQL("""
    WITH ends AS MATERIALIZED ({ends}), events AS MATERIALIZED ({events}), firsts AS ({firsts}), times AS (
        SELECT p.id, ({ready}) AS ready_for_review, p.closed_at,
               CASE WHEN p.state = 'MERGED' THEN p.closed_at END AS merged_at,
               CASE WHEN p.state = 'MERGED' THEN {to_close} END AS open_to_merge,
               {to_review} AS open_to_first_review,
               {to_approval} AS open_to_first_approval,
               {to_bot_review} AS open_to_first_bot_review
        FROM ends p LEFT JOIN firsts f USING (id))
    UPDATE bitbucket_pulls p SET ({columns}) = ROW({new})
    FROM times t
    WHERE t.id = p.id AND ({old}) IS DISTINCT FROM ({new})""")
    .format(
        ends=_ENDS,
        events=_EVENTS,
        firsts=_FIRSTS,
        ready=_READY,
        to_close=_seconds_to("p.closed_at"),
        to_review=_seconds_to("f.reviewed_at"),
        to_approval=_seconds_to("f.approved_at"),
        to_bot_review=_seconds_to("f.bot_reviewed_at"),
        columns=SQL(", ").join(Identifier(name) for name in _COLUMNS),
        new=SQL(", ").join(Identifier("t", name) for name in _COLUMNS),
        old=SQL(", ").join(Identifier("p", name) for name in _COLUMNS),
    )
    .as_string()
)


async def derive(transaction: Transaction, pull_ids: Collection[str]) -> None:
    """Derives the times and durations of these pull requests from their stored activity, comments and commits."""
    if pull_ids:
        await transaction.execute(_DERIVE, {"pulls": list(pull_ids)})


_FIRST_COMMITS = """
    WITH firsts AS (
        SELECT wanted.id, (SELECT min(c.created) FROM bitbucket_pull_commits c
                           WHERE c.pull_id = wanted.id AND NOT c.deleted) AS first_commit_at
        FROM unnest(%s::uuid[]) AS wanted (id))
    UPDATE bitbucket_pulls p SET first_commit_at = firsts.first_commit_at FROM firsts
    WHERE p.id = firsts.id AND p.first_commit_at IS DISTINCT FROM firsts.first_commit_at"""


async def derive_first_commits(transaction: Transaction, pull_ids: Collection[str]) -> None:
    """Derives the date of the first commit of these pull requests, whose commits have changed."""
    if pull_ids:
        await transaction.execute(_FIRST_COMMITS, [list(pull_ids)])


# A user whose type changes between human and bot changes the durations of the pull requests that they reviewed.
_RECOUNTED = """
    UPDATE bitbucket_users SET counted_as = type
    WHERE workspace_id = %s AND counted_as IS DISTINCT FROM type RETURNING id::text"""
_REVIEWED_BY = """
    SELECT pull_id::text FROM bitbucket_pull_activities WHERE user_id = ANY(%(users)s::uuid[])
    UNION SELECT pull_id::text FROM bitbucket_pull_comments WHERE user_id = ANY(%(users)s::uuid[])"""
_OF_WORKSPACE = """
    SELECT p.id::text FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
    WHERE r.workspace_id = %s"""


async def follow_old_rules(transaction: Transaction, workspace_id: str) -> bool:
    """Whether the workspace's durations were last derived by older rules."""
    row = await transaction.row("SELECT rules FROM bitbucket_workspaces WHERE id = %s", [workspace_id])
    return row is not None and row.rules != RULES


async def mend(transaction: Transaction, workspace_id: str) -> None:
    """Derives again the pull requests that follow older rules, or count a user by an outdated type."""
    old = await follow_old_rules(transaction, workspace_id)
    recounted = [row.id for row in await transaction.rows(_RECOUNTED, [workspace_id])]
    if not old and not recounted:
        return
    statement, bound = (_OF_WORKSPACE, [workspace_id]) if old else (_REVIEWED_BY, {"users": recounted})
    async for rows in transaction.in_parts(statement, bound):
        ids = [pull_id for (pull_id,) in rows]
        await derive(transaction, ids)
        if old:
            await derive_first_commits(transaction, ids)
    if old:
        await transaction.execute("UPDATE bitbucket_workspaces SET rules = %s WHERE id = %s", [RULES, workspace_id])
