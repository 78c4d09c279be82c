"""`bitbucket_reviews`: approvals and change requests with their comments, and comments without an opinion.

An opinion is an approval or a change request by somebody other than the author. It takes the comments that its reviewer
has written since the previous one; those after the last one are a review of their own, COMMENTED.

* An account that is gone (`user` null) has no reviews: nothing tells two of them apart, nor one from the author.
* A deleted comment belongs to no review, and neither does a bare reviewer without one.
* The reviewer's last opinion is withdrawn where the participants, as of a later time, show none. The feed may keep its
  entry or drop it: either way it is no review, and its comments go to the next opinion. An earlier opinion that another
  one followed was one in its time, and stays.
* A comment of the opinion's own moment belongs to it: the site sends both at once.
* What is dated before the opening is a review, without a duration.

The id of an opinion is that of its entry in `bitbucket_pull_activities`. That of a COMMENTED review is derived from the
opinion before it, or else from pull request and reviewer, and from no comment: the first may be deleted.
"""

from psycopg.sql import SQL
from sqlalchemy import Table

from dx_dagster.insights import changes
from dx_dagster.insights.building import Build
from dx_dagster.insights.changes import Scope
from dx_dagster.insights.derivation import Derivation, derive
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported.review_times import IS_OTHER
from dx_dagster.warehouse.schema import bitbucket

# A participant's row tells of the opinion if it is newer, by the date of Bitbucket's last change or of our request. One
# who never took part according to it (`participated_on` null) is only known as a reviewer.
_OPINIONS = SQL("""
    SELECT pull_id, user_id, a.id, a.kind, a.created_at
    FROM (SELECT a.*, lead(a.id) OVER (PARTITION BY a.pull_id, a.user_id ORDER BY a.created_at, a.kind DESC) AS next
          FROM changed_pulls c JOIN bitbucket_pull_activities a ON a.pull_id = c.id
          WHERE a.kind IN ('approval', 'changes_requested')) a
    LEFT JOIN (SELECT o.pull_id, o.user_id, GREATEST(o.participated_on, o.synced_at) AS told_at
               FROM changed_pulls c JOIN bitbucket_pull_participants o ON o.pull_id = c.id
               WHERE o.state IS NULL AND o.approved IS FALSE AND o.participated_on IS NOT NULL) bare
    USING (pull_id, user_id)
    WHERE a.next IS NOT NULL OR (bare.told_at >= a.created_at) IS NOT TRUE""")

_EVENTS = SQL("""
    SELECT e.*
    FROM (SELECT pull_id, user_id, created_at, id AS opinion_id, kind, 0 AS number, NULL::uuid AS comment_id,
                 created_at AS updated_at
          FROM ({opinions}) o
          UNION ALL
          SELECT c.pull_id, c.user_id, c.created_at, NULL, 'comment', c.source_id, c.id, c.updated_at
          FROM changed_pulls s JOIN bitbucket_pull_comments c ON c.pull_id = s.id
          WHERE NOT c.deleted) e
    JOIN bitbucket_pulls p ON p.id = e.pull_id
    JOIN bitbucket_users who ON who.id = e.user_id
    LEFT JOIN bitbucket_users author ON author.id = p.user_id
    WHERE {is_other}""").format(opinions=_OPINIONS, is_other=IS_OTHER)

# `place` counts the reviewer's opinions before each event: one and the same for an opinion and the comments before it.
_PLACED = SQL("""
    SELECT *, count(opinion_id) OVER (one_after_another ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS place,
           lag(kind <> 'comment', 1, true) OVER one_after_another AS is_first
    FROM ({events}) events
    WINDOW one_after_another AS (
        PARTITION BY pull_id, user_id ORDER BY created_at, kind <> 'comment', number, kind DESC)""").format(
    events=_EVENTS
)

_GATHERED = SQL("""
    SELECT pull_id, user_id, place, (array_agg(opinion_id) FILTER (WHERE kind <> 'comment'))[1] AS opinion_id,
           max(kind) FILTER (WHERE kind <> 'comment') AS kind,
           count(comment_id) AS comment_count, (array_agg(comment_id) FILTER (WHERE is_first))[1] AS comment_id,
           CASE WHEN count(opinion_id) > 0 THEN max(created_at) ELSE min(created_at) END AS created_at,
           GREATEST(max(created_at), max(updated_at)) AS updated_at
    FROM ({placed}) placed GROUP BY pull_id, user_id, place""").format(placed=_PLACED)

_NAMED = SQL("""
    SELECT *, COALESCE(
               opinion_id::text,
               COALESCE(lag(opinion_id) OVER (PARTITION BY pull_id, user_id ORDER BY place)::text,
                        pull_id || '/' || user_id) || '/comments') AS source_id
    FROM ({gathered}) gathered""").format(gathered=_GATHERED)

# A uuid of version 8, from SHA-256: PostgreSQL has no uuid5, and no MD5 where only FIPS algorithms are allowed.
_ID_OF_COMMENTS = (
    "overlay(overlay(left(encode(sha256(convert_to(r.source_id, 'UTF8')), 'hex'), 32) PLACING '8' FROM 13 FOR 1) "
    "PLACING '8' FROM 17 FOR 1)::uuid"
)
_COLUMNS = {
    "id": f"COALESCE(r.opinion_id, {_ID_OF_COMMENTS})",
    "source_id": "r.source_id",
    "pull_id": "r.pull_id",
    "user_id": "r.user_id",
    "state": "CASE r.kind WHEN 'approval' THEN 'APPROVED' WHEN 'changes_requested' THEN 'DECLINED' "
    "ELSE 'COMMENTED' END",
    "comment_count": "r.comment_count",
    "time_since_request": "CASE WHEN r.created_at >= p.created_at "
    "THEN EXTRACT(epoch FROM r.created_at - p.created_at)::float8 END",
    "created_at": "r.created_at",
    "updated_at": "r.updated_at",
    "source_url": "CASE WHEN r.opinion_id IS NULL THEN COALESCE(c.source_url, p.source_url) ELSE p.source_url END",
}
_ACTIVITY, _COMMENT = "bitbucket_pull_activities", "bitbucket_pull_comments"
_ALIASES: dict[str, Table | dict[str, tuple[str, ...]]] = {
    "c": bitbucket.pull_comments,
    "p": bitbucket.pulls,
    "r": {
        "opinion_id": (f"{_ACTIVITY}.id", "bitbucket_pull_participants.state"),
        "source_id": (f"{_ACTIVITY}.id", f"{_COMMENT}.pull_id", f"{_COMMENT}.user_id"),
        "pull_id": (f"{_ACTIVITY}.pull_id", f"{_COMMENT}.pull_id"),
        "user_id": (f"{_ACTIVITY}.user_id", f"{_COMMENT}.user_id"),
        "kind": (f"{_ACTIVITY}.kind",),
        "comment_count": (f"{_COMMENT}.id", f"{_COMMENT}.deleted", f"{_COMMENT}.created_at"),
        "created_at": (f"{_ACTIVITY}.created_at", f"{_COMMENT}.created_at"),
        "updated_at": (f"{_ACTIVITY}.created_at", f"{_COMMENT}.updated_at"),
    },
}
REVIEWS = Derivation(
    bitbucket.reviews,
    _COLUMNS,
    SQL("""FROM ({named}) r JOIN bitbucket_pulls p ON p.id = r.pull_id
           LEFT JOIN bitbucket_pull_comments c ON c.id = r.comment_id AND r.opinion_id IS NULL""").format(named=_NAMED),
    _ALIASES,
    key=("id",),
    noted_as="review",
)
_OF_CHANGED_PULLS = SQL("old.pull_id IN (SELECT id FROM changed_pulls)")
# A build of everything finds the pull requests that have rows.
_OF_ALL_PULLS = SQL("({changed} OR NOT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = old.pull_id))").format(
    changed=_OF_CHANGED_PULLS
)


async def _build(transaction: Transaction, scope: Scope) -> None:
    if not await changes.find_pulls(transaction, scope) and not scope.everything:
        return
    within = _OF_ALL_PULLS if scope.everything else _OF_CHANGED_PULLS
    await derive(transaction, REVIEWS, scope.bound, within=within)


BUILD = Build(
    "bitbucket/reviews",
    bitbucket.reviews,
    after=("bitbucket/pullrequests", "bitbucket/activity", "bitbucket/comments"),
    derivations=(REVIEWS,),
    work=_build,
)
