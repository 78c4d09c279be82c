"""When pull requests were reviewed, approved and closed: told by their activity, comments and commits.

No duration is negative: what is dated before the opening of its pull request, or after its end, is no review of it.
"""

# ruff: noqa: S608 - all of this is SQL out of expressions of ours

from collections.abc import Collection

from dx_dagster.warehouse.database import Transaction

RULES = 1
"""Version of these rules; a workspace whose pull requests follow older ones is derived again (`mend`)."""

_DERIVED_AT_ONCE = 2000

CLOSES = "(p.state <> 'OPEN' AND (a.state = p.state OR (p.state = 'SUPERSEDED' AND a.state = 'DECLINED')))"
"""Whether an update `a` says that the pull request `p` was closed, in SQL."""

# An account that was deleted may come with a new uuid (recorded by jenkinsci/bitbucket-branch-source-plugin).
_OTHER = "(who.id IS DISTINCT FROM p.user_id AND (who.account_id = author.account_id) IS NOT TRUE)"

# What moves `updated_on` is an entry of the activity or a comment, dated within seconds of it; a merge by push is
# neither.
_MOVED_THEN = "BETWEEN p.updated_at - interval '5 seconds' AND p.updated_at + interval '5 seconds'"
_EXPLAINED = f"""(
    EXISTS (SELECT FROM bitbucket_pull_activities a WHERE a.pull_id = p.id AND a.created_at {_MOVED_THEN})
    OR EXISTS (SELECT FROM bitbucket_pull_comments c
               WHERE c.pull_id = p.id AND (c.created_at {_MOVED_THEN} OR c.updated_at {_MOVED_THEN})))"""

# A pull request never leaves MERGED, DECLINED or SUPERSEDED again, and later updates (a new title) repeat the state:
# the first update with it is the moment. Updates know no SUPERSEDED, says the specification: those are declined. Where
# the activity has none (a merge by push, a feed that forgot), the closing is what moved `updated_on` last, unless
# something else did; then a merge is as old as its commit, which may have been made before the pull request.
_ENDS = f"""
    SELECT p.id, p.user_id, p.state, p.opened_at,
           COALESCE(
               (SELECT min(a.created_at) FROM bitbucket_pull_activities a
                WHERE a.pull_id = p.id AND a.kind = 'update' AND {CLOSES} AND a.created_at >= p.opened_at),
               CASE WHEN p.state <> 'OPEN' AND p.updated_at >= p.opened_at AND NOT {_EXPLAINED} THEN p.updated_at END,
               CASE WHEN p.state = 'MERGED' AND p.commit_date >= p.opened_at THEN p.commit_date END) AS closed_at
    FROM (SELECT p.*, COALESCE(p.created_at, '-infinity') AS opened_at,
                 COALESCE((SELECT c.created FROM bitbucket_repository_default_branch_commits c
                           WHERE c.repository_id = p.repository_id AND c.sha = p.merge_commit_sha),
                          p.merge_commit_date) AS commit_date
          FROM bitbucket_pulls p WHERE p.id = ANY(%(pulls)s::uuid[])) p"""

# Comments are entries of the activity too, but not every one of them: an activity may be refused.
_EVENTS = """
    SELECT pull_id, user_id, kind, created_at FROM bitbucket_pull_activities
    WHERE pull_id = ANY(%(pulls)s::uuid[]) AND kind <> 'update'
    UNION ALL
    SELECT pull_id, user_id, 'comment', created_at FROM bitbucket_pull_comments
    WHERE pull_id = ANY(%(pulls)s::uuid[])"""

_FIRSTS = f"""
    SELECT p.id, min(e.created_at) FILTER (WHERE who.type = 'human') AS reviewed_at,
           min(e.created_at) FILTER (WHERE who.type = 'human' AND e.kind = 'approval') AS approved_at,
           min(e.created_at) FILTER (WHERE who.type <> 'human') AS bot_reviewed_at
    FROM ends p
    JOIN events e ON e.pull_id = p.id AND e.created_at >= p.opened_at
                 AND e.created_at <= COALESCE(p.closed_at, 'infinity')
    JOIN bitbucket_users who ON who.id = e.user_id
    LEFT JOIN bitbucket_users author ON author.id = p.user_id
    WHERE {_OTHER}
    GROUP BY p.id"""

_READY = """
    SELECT min(a.created_at) FROM bitbucket_pull_activities a
    WHERE a.pull_id = p.id AND a.draft IS FALSE AND a.created_at > (
        SELECT min(d.created_at) FROM bitbucket_pull_activities d WHERE d.pull_id = p.id AND d.draft)"""

_COLUMNS = (
    *("ready_for_review", "closed_at", "merged_at", "open_to_merge", "open_to_first_review", "open_to_first_approval"),
    "open_to_first_bot_review",
)


def _seconds_to(moment: str) -> str:
    """From the opening, where both are known."""
    return f"EXTRACT(epoch FROM {moment} - NULLIF(p.opened_at, '-infinity'))::float8"


_DERIVE = f"""
    WITH ends AS MATERIALIZED ({_ENDS}), events AS MATERIALIZED ({_EVENTS}), firsts AS ({_FIRSTS}), times AS (
        SELECT p.id, ({_READY}) AS ready_for_review, p.closed_at,
               CASE WHEN p.state = 'MERGED' THEN p.closed_at END AS merged_at,
               CASE WHEN p.state = 'MERGED' THEN {_seconds_to("p.closed_at")} END AS open_to_merge,
               {_seconds_to("f.reviewed_at")} AS open_to_first_review,
               {_seconds_to("f.approved_at")} AS open_to_first_approval,
               {_seconds_to("f.bot_reviewed_at")} AS open_to_first_bot_review
        FROM ends p LEFT JOIN firsts f USING (id))
    UPDATE bitbucket_pulls p SET {", ".join(f"{name} = t.{name}" for name in _COLUMNS)}
    FROM times t
    WHERE t.id = p.id AND ({", ".join(f"p.{name}" for name in _COLUMNS)})
          IS DISTINCT FROM ({", ".join(f"t.{name}" for name in _COLUMNS)})"""


async def derive(transaction: Transaction, pull_ids: Collection[str]) -> None:
    """Works out from activity and comments when these pull requests were reviewed, approved and closed."""
    if pull_ids:
        await transaction.execute(_DERIVE, {"pulls": list(pull_ids)})


# Whoever counts as a bot or a person from now on changes what others were reviewed by.
_RECOUNTED = """
    WITH recounted AS (
        UPDATE bitbucket_users SET counted_as = type
        WHERE workspace_id = %s AND counted_as IS DISTINCT FROM type RETURNING id)
    SELECT a.pull_id::text AS id FROM bitbucket_pull_activities a JOIN recounted u ON u.id = a.user_id
    UNION SELECT c.pull_id::text FROM bitbucket_pull_comments c JOIN recounted u ON u.id = c.user_id"""
_OF_WORKSPACE = """
    SELECT p.id::text FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
    WHERE r.workspace_id = %s"""


async def follow_old_rules(transaction: Transaction, workspace_id: str) -> bool:
    """Whether the workspace's durations were last derived by older rules."""
    row = await transaction.row("SELECT rules FROM bitbucket_workspaces WHERE id = %s", [workspace_id])
    return row is not None and row.rules != RULES


async def mend(transaction: Transaction, workspace_id: str) -> None:
    """Derives again what follows older rules, or counts somebody as what he no longer is."""
    old = await follow_old_rules(transaction, workspace_id)
    recounted = [row.id for row in await transaction.rows(_RECOUNTED, [workspace_id])]
    found = [row.id for row in await transaction.rows(_OF_WORKSPACE, [workspace_id])] if old else recounted
    for start in range(0, len(found), _DERIVED_AT_ONCE):
        await derive(transaction, found[start : start + _DERIVED_AT_ONCE])
    if old:
        await transaction.execute("UPDATE bitbucket_workspaces SET rules = %s WHERE id = %s", [RULES, workspace_id])
