"""What happened to pull requests: the repository's feed, one walk instead of a request for each pull request.

The feed is newest first and opaque: no filter, no order of ours (BCLOUD-21067). Where it cannot be used, and for single
pull requests about which it says too little, their own activity is asked instead.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from dx_dagster.bitbucket import (
    BadRequest,
    Forbidden,
    Gone,
    NotFound,
    Page,
    PagingInCircles,
    RefusedOrigin,
    Unavailable,
    cursor,
    endpoints,
)
from dx_dagster.frames import activities as frames
from dx_dagster.frames import comments, users
from dx_dagster.frames.activities import Entry
from dx_dagster.importer.pullrequests import OVERLAP, fetch_one, later, reaches_below
from dx_dagster.importer.pulls import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.workspace import (
    Report,
    Workspace,
    for_each_repository,
    is_away,
    lacks_scope,
    note,
    pull_id,
    require_id,
)
from dx_dagster.warehouse import marks, merge, pulls
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.marks import Mark, Repository

KIND = "activity"
FEED_UNUSABLE = (BadRequest, NotFound, Gone, Forbidden, PagingInCircles, RefusedOrigin)
_ATTEMPTS_AFTER_A_FAILURE = 2


async def import_activity(workspace: Workspace) -> Report:
    """Stores new entries of every repository's feed, the comments in them, and the times that follow from them."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    if workspace.full:
        await marks.forget(workspace.warehouse, workspace_id, KIND)
    repositories = await marks.repositories(workspace.warehouse, workspace_id, KIND)

    async def work(repository: Repository) -> None:
        await import_feed(workspace, report, repository)

    readable = [repository for repository in repositories if repository.accessible]
    await for_each_repository(workspace, report, readable, work)
    stale = await pull_rows(workspace, STALE)
    await for_each_pull(workspace, report, stale, lambda row: import_one(workspace, row))
    return report


async def import_feed(workspace: Workspace, report: Report, repository: Repository) -> None:
    """Reads what is new in the feed, or notes that the pull requests must be asked themselves.

    Raises:
        BitbucketError: a credential lacks a scope, or Bitbucket is away.
    """
    checked = f"{datetime.now(UTC).date()} {await pulls.fingerprint(workspace.warehouse, repository.id)}"
    try:
        await _read_feed(workspace, repository, checked)
    except (*FEED_UNUSABLE, Unavailable) as error:
        if lacks_scope(error) or (isinstance(error, Unavailable) and await is_away(workspace)):
            raise
        note(workspace, report, f"{repository.slug}: the feed cannot be used, so each pull request is asked ({error})")
        mark = Mark(repository.id, KIND, fallback=str(error))
        if isinstance(error, Unavailable):
            # It may come back: what it told is kept. Until something changes it is left alone, for each try takes long.
            kept = repository.mark
            mark = replace(mark, synced_to=kept.synced_to, full_head=kept.full_head, since=kept.since, checked=checked)
        async with workspace.warehouse.transaction() as transaction:
            await marks.put(transaction, mark)
    await _fetch_unknown(workspace, repository)


async def _read_feed(workspace: Workspace, repository: Repository, checked: str) -> None:
    """Reads what is new in the feed.

    Nearly everything that it may hold shows in the list of pull requests too. Where that has not changed, the feed is
    asked once a day only, for what does not: an opinion about a pull request that is closed.
    """
    mark = repository.mark
    attempts = None if mark.fallback is None else _ATTEMPTS_AFTER_A_FAILURE
    if mark.walk_cursor is not None:
        try:
            mark = await _walk(workspace, repository, mark)
        except (BadRequest, NotFound):
            # Nobody promises that a cursor lives long: begin anew.
            mark = Mark(repository.id, KIND, since=mark.since)
    elif mark.checked == checked:
        return
    elif mark.synced_to is None:
        mark = replace(mark, since=workspace.since)
    await _walk(workspace, repository, replace(mark, walk_head=None, fallback=None, checked=checked), attempts)


async def _walk(workspace: Workspace, repository: Repository, mark: Mark, attempts: int | None = None) -> Mark:
    """One way through the feed, down to what is known; returns the mark at its end."""
    full = mark.synced_to is None
    stop = mark.since if mark.synced_to is None else mark.synced_to - OVERLAP
    whole = full and mark.since is None and mark.walk_cursor is None
    seen: set[str] | None = set() if whole and await pulls.has_activities(workspace.warehouse, repository.id) else None
    oldest: datetime | None = None
    endpoint = endpoints.activity(workspace.slug, repository.source_id)
    async for page in cursor(workspace.client, endpoint, start=mark.walk_cursor, attempts=attempts):
        entries = list(frames.entries(page.values))
        if mark.walk_head is None:
            mark = replace(mark, walk_head=max((entry.date for entry in entries), default=None))
        oldest = min([entry.date for entry in entries], default=oldest)
        over = page.next is None or reaches_below([entry.date for entry in entries], stop)
        if full and page.next is None:
            mark = replace(mark, since=_begin(mark.since, oldest or page.asked_at))
        if full and stop is not None:
            entries = [entry for entry in entries if entry.date >= stop]
        mark = _ended(mark, full=full) if over else replace(mark, walk_cursor=page.next)
        async with workspace.warehouse.transaction() as transaction:
            ids = await _store(transaction, workspace, repository, entries, page, known=not full)
            await marks.put(transaction, mark)
            if seen is not None:
                seen.update(ids)
                if over and oldest is not None:
                    await pulls.flag_unseen_activities(transaction, repository.id, seen, oldest)
        if over:
            break
    return mark


def _begin(since: datetime | None, oldest: datetime) -> datetime:
    """From when on the feed tells everything: nobody promises that it reaches back to the first pull request."""
    return max([oldest - OVERLAP, *([since] if since else [])])


def _ended(mark: Mark, *, full: bool) -> Mark:
    return replace(
        mark,
        synced_to=later(mark.synced_to, mark.walk_head),
        full_head=mark.walk_head if full else mark.full_head,
        walk_cursor=None,
        walk_head=None,
    )


async def _store(
    transaction: Transaction,
    workspace: Workspace,
    repository: Repository,
    entries: Sequence[Entry],
    page: Page,
    *,
    known: bool = False,
) -> list[str]:
    """Merges entries and the comments that they carry; remembers pull requests that are heard of for the first time.

    `known` says that older entries are stored already. Returns the ids of the entries.
    """
    said = [(pull_id(repository, entry.number), entry.body) for entry in entries if entry.kind == "comment"]
    numbers = {entry.number: pull_id(repository, entry.number) for entry in entries}
    activities = frames.activities(workspace.id, repository.id, entries, page.asked_at)
    await pulls.remember(transaction, repository.id, numbers, all_of_them=known)
    if known:
        await pulls.flag_repeated_opinions(transaction, activities)
    await transaction.merge(merge.USERS, users.users(workspace.id, [one.actor for one in entries], page.asked_at))
    await transaction.merge(merge.ACTIVITIES, activities)
    await transaction.merge(merge.COMMENTS, comments.comments(workspace.id, said, page.asked_at))
    await pulls.derive_times(transaction, numbers.values())
    return activities["id"].to_list()


async def _fetch_unknown(workspace: Workspace, repository: Repository) -> None:
    """Fetches pull requests that the feed knows and the list did not hold yet."""
    rows = await workspace.warehouse.rows(
        "SELECT number FROM pull_marks m WHERE repository_id = %s "
        "AND NOT EXISTS (SELECT FROM bitbucket_pulls p WHERE p.id = m.pull_id)",
        [repository.id],
    )
    for row in rows:
        await fetch_one(workspace, repository, row.number)


# Pull requests whose own activity must be asked: an opinion went away; the feed cannot be used and did not tell before
# what changed since, or it began after the pull request did (--since); it is closed, approved or has changes
# requested, and the feed does not say when.
STALE = """
    m.activity_stale OR (m.activity_synced_to IS DISTINCT FROM p.updated_at AND (
        EXISTS (SELECT FROM sync_marks feed
                WHERE feed.repository_id = p.repository_id AND feed.kind = 'activity'
                  AND ((feed.fallback IS NOT NULL AND (feed.synced_to IS NULL
                                                       OR p.updated_at >= feed.synced_to - interval '5 minutes'))
                       OR (m.activity_synced_to IS NULL AND p.created_at < feed.since)))
     OR (p.state <> 'OPEN' AND NOT EXISTS (
            SELECT FROM bitbucket_pull_activities a
            WHERE a.pull_id = p.id AND a.kind = 'update' AND a.state = p.state))
     OR EXISTS (
            SELECT FROM bitbucket_pull_participants o
            WHERE o.pull_id = p.id AND (o.approved OR o.state = 'changes_requested') AND NOT EXISTS (
                SELECT FROM bitbucket_pull_activities a
                WHERE a.pull_id = p.id AND a.user_id = o.user_id
                  AND a.kind = CASE WHEN o.approved THEN 'approval' ELSE 'changes_requested' END))))"""


async def import_one(workspace: Workspace, row: PullRow) -> None:
    """Asks one pull request for its whole activity, which replaces what was stored."""
    endpoint = endpoints.pull_request_activity(workspace.slug, row.repository.source_id, row.number)
    pages = [page async for page in cursor(workspace.client, endpoint)]
    entries = [entry for page in pages for entry in frames.entries(page.values)]
    async with workspace.warehouse.transaction() as transaction:
        kept = await _store(transaction, workspace, row.repository, entries, pages[0])
        await pulls.drop_other_activities(transaction, row.id, kept)
        await pulls.derive_times(transaction, [row.id])
        await pulls.set_marks(transaction, "activity_synced_to", [(row, row.updated_at)])
