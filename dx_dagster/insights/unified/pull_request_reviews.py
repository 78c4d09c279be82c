"""`pull_request_reviews`: one row for each review of a pull request, by people and by bots.

Durations count from `ready_for_review_at` where the pull request was a draft, else from `created`. A review before that
moment has none. The author's other accounts are reviewers like any other, so that numbers stay when people are joined
and parted; `by_author` tells their reviews.
"""

from psycopg.sql import SQL

from dx_dagster.insights.building import Build
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.changes import Scope, find_pulls
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.schema import bitbucket, people, unified

_START = "COALESCE(t.ready_for_review_at, t.created)"


def _derivation(time: BusinessTime) -> Derivation:
    zone = time.zone_of("z.name")
    return Derivation(
        unified.pull_request_reviews,
        {
            "comment_count": "v.comment_count",
            "created": "v.created_at",
            "dx_user_id": "i.dx_user_id",
            "external_id": "v.source_id",
            "external_url": "v.source_url",
            "pull_request_id": "t.id",
            "repo_id": "t.repo_id",
            "source": "'bitbucket'",
            "source_table_id": "v.id",
            "source_table_pull_id": "v.pull_id",
            "source_table_repo_id": "t.source_table_repo_id",
            "time_since_request": f"CASE WHEN v.created_at >= {_START} "
            f"THEN EXTRACT(epoch FROM v.created_at - {_START}) END",
            "time_since_request_business_hours": time.seconds(_START, "v.created_at", zone),
            "tz": zone,
            "review_type": "v.state",
            "bot_authored": "COALESCE(u.type <> 'human', false)",
            "by_author": "COALESCE(i.dx_user_id = t.dx_user_id, false)",
            "deleted": "t.deleted",
        },
        SQL("""FROM changed_pulls c JOIN pull_requests t ON t.source_table_id = c.id
               JOIN bitbucket_reviews v ON v.pull_id = c.id
               LEFT JOIN bitbucket_users u ON u.id = v.user_id
               LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = v.user_id
               LEFT JOIN dx_users d ON d.id = i.dx_user_id
               LEFT JOIN known_zones z ON z.name = d.tz"""),
        {
            "v": bitbucket.reviews,
            "t": unified.pull_requests,
            "u": bitbucket.users,
            "i": people.identities,
            "z": {"name": ("dx_users.tz",)},
        },
        noted_as="pull_request_reviews",
    )


_VANISHED = """
    DELETE FROM pull_request_reviews o USING changed_pulls c, pull_requests t
    WHERE t.source_table_id = c.id AND o.pull_request_id = t.id
    AND NOT EXISTS (SELECT FROM bitbucket_reviews v WHERE v.id = o.source_table_id)"""


async def _build(transaction: Transaction, scope: Scope) -> None:
    if not await find_pulls(transaction, scope, kinds=("pull", "review")):
        return
    time = BusinessTime.parse(scope.settings)
    await time.prepare(transaction)
    await transaction.execute(_VANISHED)
    await derive(transaction, _derivation(time), scope.bound)


BUILD = Build(
    "unified/pull_request_reviews",
    unified.pull_request_reviews,
    after=(
        "bitbucket/members",
        "bitbucket/reviews",
        "unified/pull_requests",
        "unified/identities",
        "unified/dx_users",
    ),
    derivations=(_derivation(BusinessTime.parse("")),),
    work=_build,
    rules="2",
    noted=("bitbucket/reviews",),
)
