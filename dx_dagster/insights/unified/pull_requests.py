"""`pull_requests`: one row for each pull request.

Durations count from `ready_for_review_at` where there is one, else from `created`. A review before that moment is none:
the first one at or after it counts, as the first one after the opening does in `bitbucket_pulls`. One with another
account of the author is none either: `bitbucket_pulls` knows accounts, and no people.
"""

from psycopg.sql import SQL, Identifier

from dx_dagster.insights.building import Build
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.changes import Scope, find_pulls
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.insights.unified import reverts
from dx_dagster.insights.unified.repos import REPOS
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported.review_times import IS_OTHER, events
from dx_dagster.warehouse.schema import bitbucket, people, unified

_EVENT_TIMES = ("bitbucket_pull_activities.created_at", "bitbucket_pull_comments.created_at")
_STARTS = ("bitbucket_pulls.ready_for_review", "bitbucket_pulls.created_at")

# The first review of each zone, and then the first of all: fewer rows are sorted so than by each event.
_BEFORE = SQL("""
    WITH merged AS (
        SELECT p.id, p.repository_id, p.source_id, p.title, p.merge_commit_sha, p.merged_at
        FROM changed_pulls c JOIN bitbucket_pulls p USING (id) WHERE p.state = 'MERGED'),
    reverted AS MATERIALIZED ({reverted}),
    starts AS MATERIALIZED (
        SELECT p.id, COALESCE(p.ready_for_review, p.created_at) AS at
        FROM changed_pulls c JOIN bitbucket_pulls p USING (id)),
    events AS ({events}),
    zones AS (
        SELECT p.id, zone.name AS tz, min(e.created_at) AS reviewed_at,
               min(e.created_at) FILTER (WHERE e.kind = 'approval') AS approved_at
        FROM events e
        JOIN starts s ON s.id = e.pull_id AND e.created_at >= COALESCE(s.at, '-infinity')
        JOIN bitbucket_pulls p ON p.id = e.pull_id AND e.created_at <= COALESCE(p.closed_at, 'infinity')
        JOIN bitbucket_users who ON who.id = e.user_id AND who.type = 'human'
        LEFT JOIN bitbucket_users author ON author.id = p.user_id
        LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = who.id
        LEFT JOIN identities authoring ON authoring.source = 'bitbucket' AND authoring.source_id = p.user_id
        LEFT JOIN dx_users d ON d.id = i.dx_user_id
        LEFT JOIN known_zones zone ON zone.name = d.tz
        WHERE {is_other} AND (i.dx_user_id = authoring.dx_user_id) IS NOT TRUE GROUP BY p.id, zone.name),
    firsts AS (
        SELECT id, min(reviewed_at) AS reviewed_at, min(approved_at) AS approved_at,
               (array_agg(tz ORDER BY reviewed_at, tz))[1] AS reviewer_tz,
               (array_agg(tz ORDER BY approved_at, tz))[1] AS approver_tz
        FROM zones GROUP BY id)""").format(
    reverted=reverts.REVERTED, events=events(SQL("IN (SELECT id FROM changed_pulls)")), is_other=IS_OTHER
)


def _seconds_to(moment: str) -> str:
    """SQL: seconds from the start to the moment; null where one is unknown, or the moment is the earlier one."""
    return f"CASE WHEN {moment} >= s.at THEN EXTRACT(epoch FROM {moment} - s.at) END"


def _derivation(time: BusinessTime) -> Derivation:
    author_zone = time.zone_of("author_zone.name")

    def hours_to(moment: str, zone: str) -> str:
        return time.seconds("s.at", moment, zone)

    return Derivation(
        unified.pull_requests,
        {
            "additions": "p.additions",
            "base_ref": "p.target_branch",
            "bot_authored": "COALESCE(author.type <> 'human', false)",
            "bot_name": "CASE WHEN author.type <> 'human' THEN author.name END",
            "bot_type": "CASE WHEN author.type <> 'human' THEN author.type END",
            "closed": "p.closed_at",
            "created": "p.created_at",
            "deletions": "p.deletions",
            "dx_user_id": "authoring.dx_user_id",
            "external_url": "p.source_url",
            "external_id": "p.source_id::text",
            "head_ref": "p.source_branch",
            "merge_commit_sha": "p.merge_commit_sha",
            "merged_by_user_id": "merging.dx_user_id",
            "merged": "p.merged_at",
            "open_to_first_approval": _seconds_to("f.approved_at"),
            "open_to_first_approval_business_hours": hours_to("f.approved_at", time.zone_of("f.approver_tz")),
            "open_to_first_review": _seconds_to("f.reviewed_at"),
            "open_to_first_review_business_hours": hours_to("f.reviewed_at", time.zone_of("f.reviewer_tz")),
            "open_to_merge": _seconds_to("p.merged_at"),
            "open_to_merge_business_hours": hours_to("p.merged_at", author_zone),
            "title": "p.title",
            "updated": "p.updated_at",
            "draft": "p.draft",
            "reverted": "v.id IS NOT NULL",
            "reverted_at": "v.reverted_at",
            "ready_for_review_at": "p.ready_for_review",
            "tz": author_zone,
            "deleted": "p.deleted_at IS NOT NULL OR r.deleted_at IS NOT NULL",
            "source": "'bitbucket'",
            "repo_id": "o.id",
            "source_table_id": "p.id",
            "source_table_repo_id": "p.repository_id",
        },
        SQL("""FROM starts s JOIN bitbucket_pulls p ON p.id = s.id
               JOIN bitbucket_repositories r ON r.id = p.repository_id JOIN repos o ON o.source_table_id = r.id
               LEFT JOIN bitbucket_users author ON author.id = p.user_id
               LEFT JOIN identities authoring ON authoring.source = 'bitbucket' AND authoring.source_id = p.user_id
               LEFT JOIN dx_users who ON who.id = authoring.dx_user_id
               LEFT JOIN known_zones author_zone ON author_zone.name = who.tz
               LEFT JOIN identities merging ON merging.source = 'bitbucket' AND merging.source_id = p.merged_by_user_id
               LEFT JOIN firsts f ON f.id = p.id
               LEFT JOIN reverted v ON v.id = p.id
               WHERE r.workspace_id = %(workspace)s"""),
        {
            "p": bitbucket.pulls,
            "r": bitbucket.repositories,
            "o": unified.repos,
            "author": bitbucket.users,
            "authoring": people.identities,
            "merging": people.identities,
            "s": {"at": _STARTS},
            "f": {
                "reviewed_at": _EVENT_TIMES,
                "approved_at": _EVENT_TIMES,
                "reviewer_tz": ("dx_users.tz",),
                "approver_tz": ("dx_users.tz",),
            },
            "author_zone": {"name": ("dx_users.tz",)},
            "v": {
                "id": ("bitbucket_pulls.title", "bitbucket_pull_commits.message"),
                "reverted_at": ("bitbucket_pulls.merged_at",),
            },
        },
        before=_BEFORE,
        noted_as="pull_requests",
    )


_DELETE = SQL("""
    DELETE FROM pull_requests t
    WHERE {chosen} AND NOT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = t.source_table_id) RETURNING t.id""")
_CHOSEN = SQL("t.source_table_id IN (SELECT id FROM changed_pulls)")
_PARTS = (unified.pull_request_commits, unified.pull_request_issues, unified.pull_request_reviews)


async def _delete_vanished(transaction: Transaction, scope: Scope) -> None:
    """Deletes rows without a source, with all that other tables say of them: no row may point to nothing.

    The other tables are locked only where there is something to delete: their own builds wait for this one.
    """
    chosen = SQL("true") if scope.everything else _CHOSEN
    gone = [row.id for row in await transaction.rows(_DELETE.format(chosen=chosen))]
    for part in _PARTS if gone else ():
        delete = SQL("DELETE FROM {} WHERE pull_request_id = ANY(%s)").format(Identifier(str(part.name)))
        await transaction.execute(delete, [gone])


async def _build(transaction: Transaction, scope: Scope) -> None:
    # A repository that was imported a moment ago has no row yet, and its pull requests would be left out.
    await derive(transaction, REPOS, scope.bound)
    if not await find_pulls(transaction, scope) and not scope.everything:
        return
    time = BusinessTime.parse(scope.settings)
    await time.prepare(transaction)
    await reverts.follow(transaction, scope)
    await _delete_vanished(transaction, scope)
    await derive(transaction, _derivation(time), scope.bound)


BUILD = Build(
    "unified/pull_requests",
    unified.pull_requests,
    after=(
        "bitbucket/repositories",
        "bitbucket/members",
        "bitbucket/pullrequests",
        "bitbucket/activity",
        "bitbucket/comments",
        "bitbucket/commits",
        "unified/repos",
        "unified/identities",
        "unified/dx_users",
    ),
    derivations=(_derivation(BusinessTime.parse("")),),
    work=_build,
    rules="3",
    noted=("unified/repos",),
)
