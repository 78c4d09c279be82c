"""`pull_request_reverts`: what merged pull requests say that they revert, and which pull requests these are.

Bitbucket's button names the commit `Revert "TITLE (pull request #12)"`, with `This reverts pull request #12.` below and
the old description quoted by `> ` (a commit of bitbucket/bitkit, among its own fixtures). `git revert` writes
`This reverts commit HASH.` A title alone names the latest pull request of that title that was merged before.
"""

from psycopg.sql import SQL

from dx_dagster.insights.changes import Scope
from dx_dagster.warehouse.database import Transaction

_LONGEST = 18  # digits of a bigint

# Of titles around titles, the last number belongs to the outermost, unless two quotes end there: then to one within it.
# Quoted lines of a message begin with `>`.
_NO_OTHER = r"(?![^\n]*\(pull request #)"
_PATTERNS = {
    "in_title": r"^\W*(?:[A-Z][A-Z0-9_]+-\d+\W+)?[Rr]everts?:?\s+(.*\S)",
    "number_in_title": rf"""\(pull request #(\d{{1,{_LONGEST}}})\)(?!["”']{{2}}){_NO_OTHER}""",
    "number": rf"^\s*(?:this )?reverts?:? (?:pull request|pr) #(\d{{1,{_LONGEST}}})\M",
    "number_in_subject": rf'\A\s*revert "[^\n]*\(pull request #(\d{{1,{_LONGEST}}})\)"(?!"){_NO_OTHER}',
    "commit": r"^\s*(?:this )?reverts commits? ([0-9a-f]{7,40})\M",
}
_FORGET = "DELETE FROM pull_request_reverts k USING changed_pulls c WHERE k.source_table_pull_id = c.id"
# Titles are weighed only where nothing names a number or a commit: many pull requests may have the same title.
_READ = SQL("""
    INSERT INTO pull_request_reverts (source_table_pull_id, source_table_repo_id, number, commit_sha, title, said_in)
    WITH merged AS MATERIALIZED (
        SELECT p.id, p.repository_id, p.title FROM changed_pulls c JOIN bitbucket_pulls p USING (id)
        WHERE p.state = 'MERGED'),
    titles AS MATERIALIZED (
        SELECT m.id, m.repository_id, btrim((regexp_match(m.title, %(in_title)s))[1]) AS title
        FROM merged m WHERE m.title LIKE '%%evert%%'),
    messages AS MATERIALIZED (
        SELECT m.id, m.repository_id, k.sha, k.message FROM merged m JOIN bitbucket_pull_commits k ON k.pull_id = m.id
        WHERE NOT k.deleted AND k.message LIKE '%%evert%%'),
    named AS MATERIALIZED (
        SELECT id, repository_id, found[1]::bigint AS number, NULL AS commit_sha, NULL AS said_in
        FROM titles, regexp_match(title, '.*' || %(number_in_title)s) found WHERE found IS NOT NULL
        UNION SELECT id, repository_id, found[1]::bigint, NULL, NULL
        FROM merged, regexp_match(title, %(number)s, 'i') found WHERE title LIKE '%%evert%%' AND found IS NOT NULL
        UNION SELECT id, repository_id, found[1]::bigint, NULL, NULL
        FROM messages, regexp_matches(message, %(number)s, 'gin') found
        UNION SELECT id, repository_id, found[1]::bigint, NULL, NULL
        FROM messages, regexp_match(message, %(number_in_subject)s, 'i') found WHERE found IS NOT NULL
        UNION SELECT id, repository_id, NULL, lower(found[1]), sha
        FROM messages, regexp_matches(message, %(commit)s, 'gin') found)
    SELECT id, repository_id, number, commit_sha, NULL, said_in FROM named
    UNION ALL
    SELECT id, repository_id, NULL, NULL, COALESCE((regexp_match(title, '^["“”''](.+)["“”'']$'))[1], title), NULL
    FROM titles t WHERE title IS NOT NULL AND NOT EXISTS (SELECT FROM named n WHERE n.id = t.id)""")

# What a changed pull request said or says, and what others say of its title: each may mean another one now. OFFSET 0
# keeps each look-up one of an index: nothing tells the planner that they are few.
_ADD_TARGETS = SQL("""
    WITH titles AS (
        SELECT p.repository_id, p.title FROM changed_pulls c JOIN bitbucket_pulls p USING (id)
        UNION SELECT u.source_table_repo_id, u.title
        FROM changed_pulls c JOIN pull_requests u ON u.source_table_id = c.id),
    said AS MATERIALIZED (
        SELECT k.* FROM changed_pulls c JOIN pull_request_reverts k ON k.source_table_pull_id = c.id
        UNION SELECT k.* FROM titles n
        JOIN pull_request_reverts k ON k.source_table_repo_id = n.repository_id AND k.title = n.title),
    targets AS (
        SELECT t.id FROM said k
        JOIN bitbucket_pulls t ON t.repository_id = k.source_table_repo_id AND t.source_id = k.number
        UNION SELECT t.id FROM said k, LATERAL (
            SELECT id FROM bitbucket_pulls
            WHERE repository_id = k.source_table_repo_id AND title = k.title OFFSET 0) t
        UNION SELECT t.id FROM said k, LATERAL (
            SELECT id, repository_id FROM bitbucket_pulls
            WHERE merge_commit_sha >= left(k.commit_sha, 7) AND merge_commit_sha < left(k.commit_sha, 7) || 'g'
            OFFSET 0) t
        WHERE t.repository_id = k.source_table_repo_id
        UNION SELECT t.id FROM said k, LATERAL (
            SELECT pull_id FROM bitbucket_pull_commits
            WHERE sha >= k.commit_sha AND sha < k.commit_sha || 'g' OFFSET 0) own
        JOIN bitbucket_pulls t ON t.id = own.pull_id
        WHERE t.repository_id = k.source_table_repo_id)
    INSERT INTO changed_pulls SELECT id FROM targets ON CONFLICT DO NOTHING""")

# A merged pull request that holds a commit together with its revert is not reverted by another one that holds both.
REVERTED = SQL("""
    SELECT said.id, min(said.reverted_at) AS reverted_at FROM (
        SELECT n.id, v.merged_at AS reverted_at FROM (
            SELECT t.id, t.merged_at, t.source_id, k.source_table_pull_id FROM merged t
            JOIN pull_request_reverts k ON k.source_table_repo_id = t.repository_id AND k.number = t.source_id
            UNION ALL SELECT t.id, t.merged_at, t.source_id, k.source_table_pull_id FROM merged t
            JOIN pull_request_reverts k
                ON k.source_table_repo_id = t.repository_id AND left(k.commit_sha, 7) = left(t.merge_commit_sha, 7)
            WHERE starts_with(t.merge_commit_sha, k.commit_sha) OR starts_with(k.commit_sha, t.merge_commit_sha)
            UNION ALL SELECT t.id, t.merged_at, t.source_id, k.source_table_pull_id FROM merged t
            JOIN bitbucket_pull_commits own ON own.pull_id = t.id AND NOT own.deleted
            JOIN pull_request_reverts k
                ON k.source_table_repo_id = t.repository_id AND left(k.commit_sha, 7) = left(own.sha, 7)
            WHERE starts_with(own.sha, k.commit_sha)
              AND NOT EXISTS (SELECT FROM bitbucket_pull_commits both_of
                              WHERE both_of.pull_id = t.id AND both_of.sha = k.said_in AND NOT both_of.deleted)
        ) n JOIN bitbucket_pulls v ON v.id = n.source_table_pull_id
        WHERE v.id <> n.id AND {is_later}
        UNION ALL
        SELECT t.id, t.reverted_at FROM (
            SELECT DISTINCT ON (k.source_table_pull_id, k.title) n.id, v.merged_at AS reverted_at FROM merged n
            JOIN pull_request_reverts k ON k.source_table_repo_id = n.repository_id AND k.title = n.title
            JOIN bitbucket_pulls v ON v.id = k.source_table_pull_id
            WHERE v.id <> n.id AND {is_later}
            ORDER BY k.source_table_pull_id, k.title, n.merged_at DESC NULLS LAST, n.source_id DESC) t) said
    GROUP BY said.id""").format(is_later=SQL("COALESCE(v.merged_at > n.merged_at, v.source_id > n.source_id)"))
"""SELECT of the ids of pull requests that are reverted, with the date of the first merge that reverts each.

It reads a query `merged`: merged ones among `changed_pulls`.
"""


async def follow(transaction: Transaction, scope: Scope) -> None:
    """Reads what the changed pull requests say, and adds to `changed_pulls` those about which it is said."""
    if not scope.everything:
        await transaction.execute(_ADD_TARGETS)
    await transaction.execute(_FORGET)
    await transaction.execute(_READ, _PATTERNS)
    if not scope.everything:
        await transaction.execute(_ADD_TARGETS)
