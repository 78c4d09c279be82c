"""Which pull requests must be fetched: one query for each thing that is fetched by pull request.

A pull request's row in `pull_marks` holds the version for which its activity, comments, commits and hashes are
complete. A query compares that mark with the pull request as it is now. In all fragments, `p` is the pull request
(`bitbucket_pulls`), `m` its marks and `feed` the mark of its repository's activity feed (`sync_marks`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL, Composable

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported import review_times
from dx_dagster.warehouse.imported.marks import rests
from dx_dagster.warehouse.merge import is_absurd, lies_in_the_future


class StalePull(NamedTuple):
    """A pull request that must be fetched, and the version that its mark gets once that is done."""

    id: str
    repository_id: str
    number: int
    updated_at: datetime | None
    version: str


class Part(NamedTuple):
    """Stale pull requests of one repository: so many, with a number from `first` to `last`."""

    repository_id: str
    first: int
    last: int
    pulls: int


@dataclass(frozen=True)
class Scope:
    """The pull requests that a query considers. Deleted ones are left out.

    Attributes:
        readable: ids of the repositories that can be read; all others are left out.
        resting: also pull requests that Bitbucket refused lately and that have not changed since.
        pulls: only pull requests with these ids; None for all.
        repositories: with `pulls`, also all pull requests of the repositories with these ids.
        parts: only pull requests in these parts; None for all.
    """

    readable: Collection[str]
    resting: bool = False
    pulls: Collection[str] | None = None
    repositories: Collection[str] = ()
    parts: Collection[Part] | None = None

    @property
    def condition(self) -> SQL:
        if self.parts is not None:
            return _IN_PARTS
        if self.pulls is None:
            return SQL("true")
        if not self.repositories:
            return SQL("p.id = ANY(%(pulls)s::uuid[])")
        return SQL("(p.id = ANY(%(pulls)s::uuid[]) OR p.repository_id = ANY(%(repositories)s::uuid[]))")


_IN_PARTS = SQL("""EXISTS (
    SELECT FROM unnest(%(part_repositories)s::uuid[], %(firsts)s::bigint[], %(lasts)s::bigint[])
                AS part (repository_id, first, last)
    WHERE part.repository_id = p.repository_id AND p.source_id BETWEEN part.first AND part.last)""")

_RESTS = SQL("""(
    m.refused_since IS NOT NULL AND m.refused_for IS NOT DISTINCT FROM p.updated_at AND {rests})""").format(
    rests=rests("m.refused_at", "m.refused_since")
)

_STALE = SQL("""
    FROM bitbucket_pulls p LEFT JOIN pull_marks m ON m.pull_id = p.id
    WHERE p.repository_id = ANY(%(readable)s::uuid[]) AND p.deleted_at IS NULL AND {is_in_scope} AND ({is_stale})
      AND NOT {rests}""")
_FIND = SQL("""
    SELECT p.id::text, p.repository_id::text, p.source_id AS number, p.updated_at, {version} AS version
    {stale} ORDER BY {order} LIMIT %(most)s""")
# The repository that changed last comes first, and the newest numbers of each.
_PARTS = SQL("""
    WITH stale AS (
        SELECT p.repository_id, p.source_id, p.updated_at,
               (row_number() OVER (PARTITION BY p.repository_id ORDER BY p.source_id DESC) - 1) / %(size)s AS part
        {stale})
    SELECT repository_id::text, min(source_id) AS first, max(source_id) AS last, count(*) AS pulls
    FROM stale GROUP BY repository_id, part
    ORDER BY max(max(updated_at)) OVER (PARTITION BY repository_id) DESC NULLS LAST, repository_id, part""")


_NO_VERSION = SQL("''")
_LAST_CHANGED_FIRST = SQL("p.updated_at DESC")


async def _find(
    warehouse: Warehouse,
    scope: Scope,
    is_stale: Composable,
    version: Composable = _NO_VERSION,
    *,
    rests: Composable = _RESTS,
    order: Composable = _LAST_CHANGED_FIRST,
    most: int | None = None,
    **bound: object,
) -> list[StalePull]:
    """The pull requests that changed last come first, unless told otherwise."""
    return await warehouse.fetch(
        StalePull,
        _FIND.format(version=version, stale=_stale(scope, is_stale, rests), order=order),
        {**_bound(scope), "most": most, **bound},
    )


def _stale(scope: Scope, is_stale: Composable, rests: Composable = _RESTS) -> Composable:
    return _STALE.format(is_in_scope=scope.condition, is_stale=is_stale, rests=SQL("false") if scope.resting else rests)


def _bound(scope: Scope) -> dict[str, object]:
    parts = scope.parts or ()
    return {
        "readable": list(scope.readable),
        "pulls": list(scope.pulls or ()),
        "repositories": list(scope.repositories),
        "part_repositories": [part.repository_id for part in parts],
        "firsts": [part.first for part in parts],
        "lasts": [part.last for part in parts],
    }


# -- activity ----------------------------------------------------------------------------------------------------------

UNTOLD_OPINION = SQL("""EXISTS (
    SELECT FROM bitbucket_pull_participants o
    WHERE o.pull_id = p.id AND (o.approved OR o.state = 'changes_requested') AND NOT EXISTS (
        SELECT FROM bitbucket_pull_activities a
        WHERE a.pull_id = p.id AND a.user_id = o.user_id
          AND a.kind = CASE WHEN o.approved THEN 'approval' ELSE 'changes_requested' END))""")
"""A participant approves or requests changes, and no stored entry says when."""

# A feed that holds the first entry of a pull request holds the rest. That entry is a little later than `created_at`.
BEGINNING_UNTOLD = SQL("""(
    p.created_at < feed.since AND NOT EXISTS (
        SELECT FROM bitbucket_pull_activities a
        WHERE a.pull_id = p.id AND a.kind = 'update' AND a.created_at >= feed.since
          AND a.created_at < p.created_at + interval '1 minute'))""")
"""The pull request is older than the oldest entry of the feed."""

_UNTOLD_END = SQL("""(p.state <> 'OPEN' AND NOT EXISTS (
    SELECT FROM bitbucket_pull_activities a WHERE a.pull_id = p.id AND a.kind = 'update' AND {closes}))""").format(
    closes=review_times.CLOSES
)

_IS_FEED = SQL("feed.repository_id = p.repository_id AND feed.kind = 'activity'")

# One of these holds: an opinion went away; the feed cannot be used and ended before the last change, or it begins after
# the pull request (--since, or a short feed); the pull request is closed, approved or has changes requested, and no
# stored entry says when.
_WITHOUT_ACTIVITY = SQL("""
    m.activity_stale OR (m.activity_synced_to IS DISTINCT FROM p.updated_at AND (
        EXISTS (SELECT FROM sync_marks feed
                WHERE {is_feed}
                  AND ((feed.fallback IS NOT NULL AND (feed.synced_to IS NULL OR {mark_is_wrong}
                                                       OR p.updated_at >= feed.synced_to - interval '5 minutes'))
                       OR (COALESCE(m.activity_synced_to < feed.since, true) AND {beginning_untold})))
        OR {untold_end}
        OR {untold_opinion}))""").format(
    is_feed=_IS_FEED,
    mark_is_wrong=lies_in_the_future("feed.synced_to"),
    beginning_untold=BEGINNING_UNTOLD,
    untold_end=_UNTOLD_END,
    untold_opinion=UNTOLD_OPINION,
)

ONLY_END_UNTOLD = "only the end is untold"
"""The version of a closed pull request about which a usable feed tells everything but when it was closed."""

_REASON = SQL("""CASE WHEN m.activity_stale IS NOT TRUE AND {untold_end} AND NOT {untold_opinion} AND EXISTS (
        SELECT FROM sync_marks feed
        WHERE {is_feed} AND feed.fallback IS NULL AND feed.synced_to IS NOT NULL AND NOT {mark_is_wrong}
          AND NOT {beginning_untold})
    THEN {only_end_untold} ELSE '' END""").format(
    untold_end=_UNTOLD_END,
    untold_opinion=UNTOLD_OPINION,
    is_feed=_IS_FEED,
    mark_is_wrong=lies_in_the_future("feed.synced_to"),
    beginning_untold=BEGINNING_UNTOLD,
    only_end_untold=ONLY_END_UNTOLD,
)

# For a pull request without marks the condition is null, not false: it is found.
_UNLESS_FEED_TOLD = SQL("(p.repository_id = ANY(%(fed)s::uuid[]) AND NOT ({without_activity})) IS NOT TRUE").format(
    without_activity=_WITHOUT_ACTIVITY
)


async def pulls_without_activity(warehouse: Warehouse, scope: Scope) -> list[StalePull]:
    """Pull requests whose own activity must be fetched, for the feed tells too little; with `ONLY_END_UNTOLD`."""
    return await _find(warehouse, scope, _WITHOUT_ACTIVITY, _REASON)


async def pulls_not_told_by_feeds(warehouse: Warehouse, scope: Scope, fed: Collection[str]) -> list[StalePull]:
    """The same after the feeds of the repositories `fed` were read; of all other repositories every pull request."""
    return await _find(warehouse, scope, _UNLESS_FEED_TOLD, fed=list(fed))


_AN_END_IS_TOLD = SQL("""
    SELECT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = ANY(%s::uuid[]) AND NOT {untold_end}) AS told""").format(
    untold_end=_UNTOLD_END
)


async def an_end_is_told(warehouse: Warehouse, pull_ids: Collection[str]) -> bool:
    """Whether the stored activity of one of these closed pull requests says when it was closed."""
    row = await warehouse.row(_AN_END_IS_TOLD, [list(pull_ids)])
    return bool(row.told)


async def pulls_not_stored(warehouse: Warehouse, repository_id: str) -> list[int]:
    """Numbers of pull requests that have marks, for the feed names them, and no row."""
    rows = await warehouse.rows(
        """SELECT number FROM pull_marks m
           WHERE repository_id = %s AND NOT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = m.pull_id)""",
        [repository_id],
    )
    return [row.number for row in rows]


# -- comments ----------------------------------------------------------------------------------------------------------

# The feed was read after the moment `full_head`: it holds every change before that moment. A pull request that counts
# no comments, and has none stored, needs no request.
_SETTLE_COMMENTS = SQL("""
    INSERT INTO pull_marks (pull_id, repository_id, number, comments_synced_to)
    SELECT p.id, p.repository_id, p.source_id, p.updated_at
    FROM bitbucket_pulls p
    JOIN bitbucket_repositories r ON r.id = p.repository_id
    LEFT JOIN pull_marks m ON m.pull_id = p.id
    LEFT JOIN sync_marks feed ON {is_feed}
    CROSS JOIN LATERAL (SELECT count(*) AS stored, count(*) FILTER (WHERE NOT deleted) AS standing
                        FROM bitbucket_pull_comments c WHERE c.pull_id = p.id) c
    WHERE r.workspace_id = %s AND m.comments_synced_to IS DISTINCT FROM p.updated_at
      AND ((p.comment_count = 0 AND c.stored = 0)
        OR (m.comments_synced_to IS NULL AND p.updated_at <= feed.full_head AND NOT {full_head_is_wrong}
            AND p.comment_count IN (c.stored, c.standing)))
    ON CONFLICT (pull_id) DO UPDATE SET comments_synced_to = EXCLUDED.comments_synced_to""").format(
    is_feed=_IS_FEED, full_head_is_wrong=lies_in_the_future("feed.full_head")
)


async def pulls_without_comments(warehouse: Warehouse, scope: Scope) -> list[StalePull]:
    """Pull requests that have changed since their comments were fetched."""
    return await _find(warehouse, scope, SQL("m.comments_synced_to IS DISTINCT FROM p.updated_at"))


async def settle_comments(transaction: Transaction, workspace_id: str) -> None:
    """Marks the pull requests whose comments are complete without a request: the feed told them, or there are none."""
    await transaction.execute(_SETTLE_COMMENTS, [workspace_id])


async def forget_comments(transaction: Transaction, workspace_id: str) -> None:
    """Makes the comments of every pull request stale (`--full`)."""
    await transaction.execute(
        """UPDATE pull_marks SET comments_synced_to = NULL
           WHERE repository_id IN (SELECT id FROM bitbucket_repositories WHERE workspace_id = %s)""",
        [workspace_id],
    )


# -- commits -----------------------------------------------------------------------------------------------------------

# The commits of a pull request are those that its source reaches and its target does not. The version holds both
# branches, and for open pull requests how many commits the target got by other ways (another pull request with the same
# commits was merged). The API does not tell when a branch beside the default one moved, except by merges into it: open
# pull requests into such a branch are stale after each merge and after each change of their own.
_COMMITS_VERSION = SQL("""concat_ws(' ', left(p.source_commit_sha, 12), p.target_branch,
    CASE WHEN p.state = 'OPEN' THEN (
    SELECT concat_ws('/', extract(epoch FROM p.updated_at), (
        SELECT count(*) FROM bitbucket_pulls k
        WHERE k.repository_id = p.repository_id AND k.target_branch = p.target_branch AND k.state = 'MERGED'))
    FROM bitbucket_repositories r
    WHERE r.id = p.repository_id AND r.default_branch IS DISTINCT FROM p.target_branch) END,
    CASE WHEN p.state = 'OPEN' THEN (
    SELECT count(*) FROM bitbucket_pull_commits c JOIN bitbucket_repository_default_branch_commits b USING (sha)
    WHERE c.pull_id = p.id AND b.repository_id = p.repository_id)::text END)""")
_WITHOUT_COMMITS = SQL("m.commits_synced_for IS DISTINCT FROM {version}").format(version=_COMMITS_VERSION)
_COMMITS_VERSIONS = SQL(
    "SELECT p.id::text, {version} AS version FROM bitbucket_pulls p WHERE p.id = ANY(%s::uuid[])"
).format(version=_COMMITS_VERSION)


async def pulls_without_commits(warehouse: Warehouse, scope: Scope) -> list[StalePull]:
    """Pull requests whose source or target has moved since their commits were fetched; see `commits_versions`."""
    return await _find(warehouse, scope, _WITHOUT_COMMITS, _COMMITS_VERSION)


async def parts_without_commits(warehouse: Warehouse, scope: Scope, size: int) -> list[Part]:
    """The same in parts of at most `size`."""
    return await warehouse.fetch(
        Part, _PARTS.format(stale=_stale(scope, _WITHOUT_COMMITS)), {**_bound(scope), "size": size}
    )


async def commits_versions(transaction: Transaction, pull_ids: Collection[str]) -> dict[str, str]:
    """By pull request: source, target, and what else decides which commits belong to it."""
    rows = await transaction.rows(_COMMITS_VERSIONS, [list(pull_ids)])
    return {row.id: row.version for row in rows}


async def forget_commits(transaction: Transaction, workspace_id: str) -> None:
    """Makes the commits and hashes of every pull request stale (`--full`)."""
    await transaction.execute(
        """UPDATE pull_marks SET commits_synced_for = NULL, hashes_resolved_for = NULL
           WHERE repository_id IN (SELECT id FROM bitbucket_repositories WHERE workspace_id = %s)""",
        [workspace_id],
    )


# -- hashes ------------------------------------------------------------------------------------------------------------

_HASHES = SQL("concat_ws(' ', p.merge_commit_sha, p.source_commit_sha)")
_WITH_SHORT_HASHES = SQL(
    "(length(p.merge_commit_sha) < 40 OR length(p.source_commit_sha) < 40) "
    "AND m.hashes_resolved_for IS DISTINCT FROM {hashes}"
).format(hashes=_HASHES)


async def pulls_with_short_hashes(warehouse: Warehouse, scope: Scope) -> list[StalePull]:
    """Pull requests with abbreviated hashes that were not resolved one by one; the version is their hashes."""
    return await _find(warehouse, scope, _WITH_SHORT_HASHES, _HASHES)


async def repositories_with_short_hashes(warehouse: Warehouse, scope: Scope) -> set[str]:
    """The repositories of these pull requests."""
    statement = SQL("SELECT DISTINCT p.repository_id::text AS id {stale}").format(
        stale=_stale(scope, _WITH_SHORT_HASHES)
    )
    return {row.id for row in await warehouse.rows(statement, _bound(scope))}


async def merged_pulls_with_short_hashes(warehouse: Warehouse, scope: Scope) -> list[StalePull]:
    """Merged pull requests whose merge commit is not among the stored commits of the default branch."""
    return await _find(warehouse, scope, SQL("p.state = 'MERGED' AND length(p.merge_commit_sha) < 40"))


# -- sizes -------------------------------------------------------------------------------------------------------------

# A pull request whose fork is gone has no source any more: the size that is known stays.
_SIZE_VERSION = SQL("concat_ws(' ', left(p.source_commit_sha, 12), p.target_branch)")
_WITHOUT_SIZE = SQL(
    "m.size_for IS NULL OR (p.source_commit_sha IS NOT NULL AND m.size_for IS DISTINCT FROM {version})"
).format(version=_SIZE_VERSION)
_SIZE_RESTS = SQL(
    "(m.size_refused_since IS NOT NULL AND m.size_refused_for IS NOT DISTINCT FROM {version} AND {rests})"
).format(version=_SIZE_VERSION, rests=rests("m.size_refused_at", "m.size_refused_since"))
_NEWEST_FIRST = SQL("m.size_refused_since IS NOT NULL, p.created_at DESC NULLS LAST, p.id")


async def pulls_without_size(warehouse: Warehouse, scope: Scope, most: int) -> list[StalePull]:
    """Pull requests whose source has moved, or which got another target, since their size was settled.

    The newest come first, and those last whose size Bitbucket refused before. The version names source and target.
    """
    return await _find(
        warehouse, scope, _WITHOUT_SIZE, _SIZE_VERSION, rests=_SIZE_RESTS, order=_NEWEST_FIRST, most=most
    )


async def forget_sizes(transaction: Transaction, workspace_id: str) -> None:
    """Makes the size of every pull request stale (`--full`). Sizes that are known stay until they are fetched again."""
    await transaction.execute(
        """UPDATE pull_marks SET size_for = NULL WHERE size_for IS NOT NULL
           AND repository_id IN (SELECT id FROM bitbucket_repositories WHERE workspace_id = %s)""",
        [workspace_id],
    )


# -- the rows themselves -----------------------------------------------------------------------------------------------


class Expected(NamedTuple):
    """A stored pull request that a listing should hold; one that is not `expected` has an absurd date."""

    id: str
    number: int
    expected: bool


_EXPECTED = SQL("""
    SELECT id::text, source_id AS number, expected FROM bitbucket_pulls
    CROSS JOIN LATERAL (SELECT updated_at >= %(listed_from)s OR (state = 'OPEN' AND updated_at >= %(horizon)s)
                               AS expected) listing
    WHERE repository_id = %(repository)s AND deleted_at IS NULL AND (expected OR {is_absurd})""").format(
    is_absurd=is_absurd("updated_at")
)


async def pulls_expected(
    warehouse: Warehouse, repository_id: str, listed_from: datetime | None, horizon: datetime
) -> list[Expected]:
    """Pull requests of a repository that a listing of it should hold, and those with a date that cannot be right.

    `listed_from`: the listing holds every pull request that changed since then; None for open ones only. `horizon`: it
    holds the open ones that changed since then.
    """
    return await warehouse.fetch(
        Expected, _EXPECTED, {"listed_from": listed_from, "horizon": horizon, "repository": repository_id}
    )
