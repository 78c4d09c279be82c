"""When pull requests were reviewed, approved and closed: told by their activity, comments and commits."""

from collections.abc import Collection

from dx_dagster.warehouse.database import Transaction

CLOSES = "(p.state <> 'OPEN' AND (a.state = p.state OR (p.state = 'SUPERSEDED' AND a.state = 'DECLINED')))"
"""Whether an update `a` says that the pull request `p` was closed, in SQL."""

# An account that was deleted may come with a new uuid (recorded by jenkinsci/bitbucket-branch-source-plugin).
_OTHER = "(who.id IS DISTINCT FROM p.user_id AND (who.account_id = author.account_id) IS NOT TRUE)"

# A pull request never leaves MERGED, DECLINED or SUPERSEDED again, and later updates (a new title) repeat the state:
# the first update with it is the moment. Updates know no SUPERSEDED, says the specification: those are declined. Where
# the activity has none, a merge is as old as the commit it made.
_DERIVE = f"""
    WITH moments AS (
        SELECT p.id, p.created_at, p.state = 'MERGED' AS merged,
               COALESCE(min(a.created_at) FILTER (WHERE a.kind = 'update' AND {CLOSES}),
                        (SELECT c.created FROM bitbucket_repository_default_branch_commits c
                         WHERE p.state = 'MERGED' AND c.repository_id = p.repository_id AND c.sha = p.merge_commit_sha),
                        CASE WHEN p.state = 'MERGED' THEN p.merge_commit_date END) AS closed_at,
               min(a.created_at) FILTER (WHERE a.draft IS FALSE AND a.created_at > drafted.at) AS ready_for_review,
               LEAST(min(a.created_at) FILTER (WHERE a.kind <> 'update' AND by.other),
                     (SELECT min(c.created_at) FROM bitbucket_pull_comments c
                      LEFT JOIN bitbucket_users who ON who.id = c.user_id
                      WHERE c.pull_id = p.id AND {_OTHER})) AS reviewed_at,
               min(a.created_at) FILTER (WHERE a.kind = 'approval' AND by.other) AS approved_at
        FROM bitbucket_pulls p
        LEFT JOIN LATERAL (SELECT min(d.created_at) AS at FROM bitbucket_pull_activities d
                           WHERE d.pull_id = p.id AND d.draft) drafted ON true
        LEFT JOIN bitbucket_users author ON author.id = p.user_id
        LEFT JOIN bitbucket_pull_activities a ON a.pull_id = p.id
        LEFT JOIN bitbucket_users who ON who.id = a.user_id
        CROSS JOIN LATERAL (SELECT {_OTHER} AS other) by
        WHERE p.id = ANY(%(pulls)s::uuid[])
        GROUP BY p.id, drafted.at, author.account_id
    ), times AS (
        SELECT id, ready_for_review, closed_at,
               CASE WHEN merged THEN closed_at END AS merged_at,
               CASE WHEN merged THEN EXTRACT(epoch FROM closed_at - created_at)::float8 END AS open_to_merge,
               EXTRACT(epoch FROM reviewed_at - created_at)::float8 AS open_to_first_review,
               EXTRACT(epoch FROM approved_at - created_at)::float8 AS open_to_first_approval
        FROM moments)
    UPDATE bitbucket_pulls p
    SET ready_for_review = t.ready_for_review, closed_at = t.closed_at, merged_at = t.merged_at,
        open_to_merge = t.open_to_merge, open_to_first_review = t.open_to_first_review,
        open_to_first_approval = t.open_to_first_approval
    FROM times t
    WHERE t.id = p.id
      AND (p.ready_for_review, p.closed_at, p.merged_at,
           p.open_to_merge, p.open_to_first_review, p.open_to_first_approval)
          IS DISTINCT FROM
          (t.ready_for_review, t.closed_at, t.merged_at,
           t.open_to_merge, t.open_to_first_review, t.open_to_first_approval)"""  # noqa: S608 - expressions of ours


async def derive(transaction: Transaction, pull_ids: Collection[str]) -> None:
    """Works out from activity and comments when these pull requests were reviewed, approved and closed."""
    if pull_ids:
        await transaction.execute(_DERIVE, {"pulls": list(pull_ids)})
