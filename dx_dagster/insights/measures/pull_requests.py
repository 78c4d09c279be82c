"""`pull_request_measures`: one row for each pull request.

Reviews, reviewers and comments are those of people other than the author, at or before the end. A duration is null
where one of its ends is unknown, or the second is the earlier one. Business hours are the author's for coding, review
and cycle time, the reviewer's for pickup time, and those of the settings until a deployment, where nobody acts.
"""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.changes import Scope, add_pulls_of_commit_authors, find_pulls
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.insights.measures.assistants import names_one
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported.review_times import IS_OTHER, events
from dx_dagster.warehouse.schema import bitbucket, measures

_IS_OTHER_PERSON = SQL("{} AND (i.dx_user_id = those.dx_user_id) IS NOT TRUE").format(IS_OTHER)
# `merged_without_review` is that of the imported row, where a review of a draft counts too. So does one with another
# account of the author, which must not: what pull_requests does not show to be reviewed is looked at again.
_BEFORE = SQL("""
    WITH those AS MATERIALIZED (
        SELECT t.id, t.source_table_id, t.source_table_repo_id, t.repo_id, t.dx_user_id, t.bot_authored, t.bot_type,
               t.created, t.merged, t.closed, t.tz, t.reverted, t.reverted_at, t.additions + t.deletions AS size,
               t.open_to_first_review, t.open_to_first_review_business_hours,
               t.open_to_merge, t.open_to_merge_business_hours,
               COALESCE(t.ready_for_review_at, t.created)
               + t.open_to_first_review::float8 * interval '1 second' AS reviewed_at
        FROM changed_pulls c JOIN pull_requests t ON t.source_table_id = c.id),
    reviewed AS (
        SELECT v.pull_request_id, count(*) AS reviews, count(DISTINCT v.dx_user_id) AS reviewers,
               min(v.created) FILTER (WHERE v.review_type = 'DECLINED') < max(v.created) AS again
        FROM those JOIN pull_request_reviews v ON v.pull_request_id = those.id
        WHERE NOT v.bot_authored AND NOT v.by_author AND v.created <= COALESCE(those.closed, 'infinity')
        GROUP BY v.pull_request_id),
    commented AS (
        SELECT p.id, count(*) AS comments
        FROM those JOIN bitbucket_pulls p ON p.id = those.source_table_id
        JOIN bitbucket_pull_comments k ON k.pull_id = p.id
        JOIN bitbucket_users who ON who.id = k.user_id AND who.type = 'human'
        LEFT JOIN bitbucket_users author ON author.id = p.user_id
        LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = who.id
        WHERE NOT k.deleted AND k.created_at <= COALESCE(p.closed_at, 'infinity') AND {is_other_person}
        GROUP BY p.id),
    unsure AS MATERIALIZED (
        SELECT those.source_table_id AS id, those.dx_user_id
        FROM those JOIN bitbucket_pulls p ON p.id = those.source_table_id
        WHERE those.merged IS NOT NULL AND those.open_to_first_review IS NULL AND p.open_to_first_review IS NOT NULL),
    by_author_alone AS (
        SELECT those.id FROM unsure those WHERE NOT EXISTS (
            SELECT FROM ({events}) e JOIN bitbucket_pulls p ON p.id = e.pull_id
            JOIN bitbucket_users who ON who.id = e.user_id AND who.type = 'human'
            LEFT JOIN bitbucket_users author ON author.id = p.user_id
            LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = who.id
            WHERE e.created_at BETWEEN p.created_at AND p.closed_at AND {is_other_person})),
    committed AS (
        SELECT k.pull_id, bool_or({names_one}) AS named, bool_or(u.type = 'ai_bot') AS by_account
        FROM changed_pulls c JOIN bitbucket_pull_commits k ON k.pull_id = c.id
        LEFT JOIN bitbucket_users u ON u.id = k.author_id
        WHERE NOT k.deleted GROUP BY k.pull_id),
    deployed AS (
        SELECT a.pull_request_id, min(d.deployed_at) AS at
        FROM those JOIN deployment_pull_requests a ON a.pull_request_id = those.id
        JOIN deployments d ON d.id = a.deployment_id
        WHERE d.success AND d.environment = 'production' GROUP BY a.pull_request_id)""").format(
    events=events(SQL("= those.id")), is_other_person=_IS_OTHER_PERSON, names_one=SQL(names_one("k.message"))
)


def _seconds(start: str, end: str) -> str:
    return f"CASE WHEN {end} >= {start} THEN EXTRACT(epoch FROM {end} - {start})::float8 END"


def _derivation(time: BusinessTime) -> Derivation:
    nobody = time.zone_of("NULL")

    def hours(start: str, end: str, zone: str) -> str:
        return time.seconds(start, end, zone)

    return Derivation(
        measures.pull_request_measures,
        {
            "pull_request_id": "t.id",
            "repo_id": "t.repo_id",
            "dx_user_id": "t.dx_user_id",
            "bot_authored": "COALESCE(t.bot_authored, false)",
            "merged": "t.merged",
            "week": f"date_trunc('week', t.merged AT TIME ZONE '{time.zone}')::date",
            "deployed_at": "d.at",
            "coding_time": _seconds("p.first_commit_at", "t.created"),
            "coding_time_business_hours": hours("p.first_commit_at", "t.created", "t.tz"),
            "pickup_time": "t.open_to_first_review::float8",
            "pickup_time_business_hours": "t.open_to_first_review_business_hours::float8",
            "review_time": _seconds("t.reviewed_at", "t.merged"),
            "review_time_business_hours": hours("t.reviewed_at", "t.merged", "t.tz"),
            "deploy_time": _seconds("t.merged", "d.at"),
            "deploy_time_business_hours": hours("t.merged", "d.at", nobody),
            "cycle_time": "t.open_to_merge::float8",
            "cycle_time_business_hours": "t.open_to_merge_business_hours::float8",
            "lead_time": _seconds("p.first_commit_at", "d.at"),
            "lead_time_business_hours": hours("p.first_commit_at", "d.at", nobody),
            "comment_count": "COALESCE(c.comments, 0)",
            "review_count": "COALESCE(v.reviews, 0)",
            "reviewer_count": "COALESCE(v.reviewers, 0)",
            "re_reviewed": "COALESCE(v.again, false)",
            "merged_without_review": "t.merged IS NOT NULL AND (p.open_to_first_review IS NULL OR a.id IS NOT NULL)",
            "reverted": "t.reverted",
            "reverted_at": "t.reverted_at",
            "size": "t.size",
            "changed_files": "p.changed_files",
            "ai_named": "COALESCE(k.named, false)",
            "ai_account": "COALESCE(k.by_account, false) OR COALESCE(t.bot_type = 'ai_bot', false)",
            "source_table_id": "t.source_table_id",
            "source_table_repo_id": "t.source_table_repo_id",
        },
        SQL("""FROM those t JOIN bitbucket_pulls p ON p.id = t.source_table_id
               JOIN bitbucket_repositories r ON r.id = p.repository_id
               LEFT JOIN reviewed v ON v.pull_request_id = t.id
               LEFT JOIN commented c ON c.id = p.id
               LEFT JOIN by_author_alone a ON a.id = p.id
               LEFT JOIN committed k ON k.pull_id = p.id
               LEFT JOIN deployed d ON d.pull_request_id = t.id
               WHERE r.workspace_id = %(workspace)s"""),
        {
            "p": bitbucket.pulls,
            "t": {
                "id": ("pull_requests.id",),
                "repo_id": ("pull_requests.repo_id",),
                "dx_user_id": ("pull_requests.dx_user_id",),
                "bot_authored": ("pull_requests.bot_authored",),
                "bot_type": ("pull_requests.bot_type",),
                "created": ("pull_requests.created",),
                "merged": ("pull_requests.merged",),
                "tz": ("pull_requests.tz",),
                "reverted": ("pull_requests.reverted",),
                "reverted_at": ("pull_requests.reverted_at",),
                "size": ("pull_requests.additions", "pull_requests.deletions"),
                "open_to_first_review": ("pull_requests.open_to_first_review",),
                "open_to_first_review_business_hours": ("pull_requests.open_to_first_review_business_hours",),
                "open_to_merge": ("pull_requests.open_to_merge",),
                "open_to_merge_business_hours": ("pull_requests.open_to_merge_business_hours",),
                "reviewed_at": ("pull_requests.open_to_first_review",),
                "source_table_id": ("pull_requests.source_table_id",),
                "source_table_repo_id": ("pull_requests.source_table_repo_id",),
            },
            "a": {"id": ("pull_requests.open_to_first_review",)},
            "c": {"comments": ("bitbucket_pull_comments.id",)},
            "v": {
                "reviews": ("pull_request_reviews.id",),
                "reviewers": ("pull_request_reviews.dx_user_id",),
                "again": ("pull_request_reviews.review_type", "pull_request_reviews.created"),
            },
            "k": {
                "named": ("bitbucket_pull_commits.message",),
                "by_account": ("bitbucket_users.type",),
            },
            "d": {"at": ("deployments.deployed_at",)},
        },
        before=_BEFORE,
        key=("pull_request_id",),
        noted_as="pull_request_measures",
    )


_KINDS = ("pull", "pull_requests", "pull_request_reviews", "deployment_pull_requests")
_DELETE = SQL("""
    DELETE FROM pull_request_measures m
    WHERE {chosen} AND NOT EXISTS (SELECT FROM pull_requests t WHERE t.id = m.pull_request_id)""")
_CHOSEN = SQL("m.source_table_id IN (SELECT id FROM changed_pulls)")


async def _build(transaction: Transaction, scope: Scope) -> None:
    found = await find_pulls(transaction, scope, kinds=_KINDS)
    found += await add_pulls_of_commit_authors(transaction, scope)
    if not found and not scope.everything:
        return
    time = BusinessTime.parse(scope.settings)
    await time.prepare(transaction)
    await transaction.execute(_DELETE.format(chosen=SQL("true") if scope.everything else _CHOSEN))
    await derive(transaction, _derivation(time), scope.bound)


BUILD = Build(
    "measures/pull_requests",
    measures.pull_request_measures,
    after=(
        "bitbucket/members",
        "bitbucket/pullrequests",
        "bitbucket/comments",
        "bitbucket/commits",
        "unified/pull_requests",
        "unified/pull_request_reviews",
        "unified/deployments",
    ),
    derivations=(_derivation(BusinessTime.parse("")),),
    work=_build,
    rules="2",
    noted=("unified/pull_requests", "unified/pull_request_reviews", "unified/deployments"),
)
