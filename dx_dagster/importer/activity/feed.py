"""Reads the activity feed of a repository: one walk instead of a request for each pull request.

The feed is newest first and can be neither filtered nor sorted (BCLOUD-21067).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, Self

from dx_dagster.bitbucket import (
    BadRequest,
    Forbidden,
    Gone,
    NotFound,
    Page,
    PagingInCircles,
    RefusedOrigin,
    Unavailable,
    ahead,
    cursor,
    endpoints,
    one_by_one,
)
from dx_dagster.frames import activities as frames
from dx_dagster.frames import comments
from dx_dagster.frames.activities import Entry
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.each import is_away, lacks_scope
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.growing_limit import GrowingLimit
from dx_dagster.importer.pull_requests import fetch_each
from dx_dagster.importer.report import Report, note
from dx_dagster.importer.watermarks import later, newest_of, overlapping, reaches_below
from dx_dagster.importer.workspace import Workspace, pull_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import feeds, marks, pulls, review_times, stale
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.marks import ActivityMark, MarkedRepository, Repository

KIND = "activity"
_LOST_OR_CLOSED = (Forbidden, NotFound, Gone)
FEED_UNUSABLE = (BadRequest, *_LOST_OR_CLOSED, PagingInCircles, RefusedOrigin)
_ATTEMPTS_AFTER_A_FAILURE = 2


class NewEntries(NamedTuple):
    """Entries of one repository; `known`: older ones are stored already."""

    repository: Repository
    entries: Sequence[Entry]
    asked_at: datetime
    known: bool = False


@dataclass
class Seen:
    """What a walk has seen: ids of entries and, in a walk through a whole feed, the oldest time."""

    whole: bool
    ids: set[str] = field(default_factory=set)
    oldest: datetime | None = None


class Walked(NamedTuple):
    """Some pages of a walk, to be stored together with their mark.

    Attributes:
        seen: only of walks through a feed that was read before.
        over: whether the walk ends with these pages.
        forgotten_since: the time that the walk should have reached, where the feed ended before.
        asked: when a walk began that leaves nothing to ask for, where it ends with these pages.
    """

    fetched: NewEntries
    mark: ActivityMark
    seen: Seen | None
    over: bool
    forgotten_since: datetime | None = None
    asked: datetime | None = None


class _UnstoredPages:
    """The pages of one walk that are requested and not stored yet; all walks share one `limit` for them."""

    def __init__(self, limit: GrowingLimit) -> None:
        self._limit = limit
        self._slots: list[object] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stored(len(self._slots))

    async def requested(self, pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
        """Requests each page once there is a slot for it."""
        more = True
        while more:
            self._slots.append(await self._limit.take())
            page = await anext(pages, None)
            if page is None:
                return
            more = page.next is not None
            yield page

    def stored(self, count: int) -> None:
        """Frees the slots of stored pages."""
        for _ in range(count):
            self._limit.free(self._slots.pop())


class Feeds:
    """Reads the feeds of a workspace's repositories, and stores pages that arrive together in one transaction.

    `limit`: of requested pages that are not stored yet. `due`: ids of the repositories to read although the list of
    pull requests shows no change; None for once a day.
    """

    def __init__(
        self, workspace: Workspace, report: Report, limit: GrowingLimit, due: Collection[str] | None = None
    ) -> None:
        self._workspace = workspace
        self._report = report
        self._limit = limit
        self._due = due
        self._commit = GroupCommit[Walked](self._store)

    async def read(self, repository: MarkedRepository[ActivityMark]) -> None:
        """Reads new entries of the feed; where it cannot be used, the activity of each pull request becomes stale.

        Raises:
            BitbucketError: a credential lacks a scope, or Bitbucket is down.
        """
        workspace = self._workspace
        listed = await pulls.fingerprint(workspace.warehouse, repository.id)
        if listed == pulls.NO_PULLS and repository.mark.walk_cursor is None:
            return  # without pull requests, the feed has nothing to store
        begun_at = workspace.now()
        fingerprint = f"{begun_at.date()} {listed}"
        try:
            await self._read(repository, fingerprint, begun_at)
        except (*FEED_UNUSABLE, Unavailable) as error:
            if lacks_scope(error) or (isinstance(error, Unavailable) and await is_away(workspace)):
                raise
            if isinstance(error, _LOST_OR_CLOSED) and repository.mark.fallback is None:
                # Raises if the repository is gone: otherwise each of its pull requests would be requested in vain.
                await workspace.client.get(endpoints.repository(workspace.slug, repository.source_id).path)
            message = f"{repository.slug}: the feed cannot be used, so each pull request is requested ({error})"
            note(workspace, self._report, message)
            # The entries read so far stay, for the feed may work again. A feed that answers only errors is left alone
            # until something changes, because attempts take long.
            left_alone = fingerprint if isinstance(error, Unavailable) else None
            mark = replace(
                repository.mark,
                walk_cursor=None,
                walk_head=None,
                bound=workspace.since,
                older=None,
                fallback=str(error),
                fingerprint=left_alone,
            )
            async with workspace.warehouse.transaction() as transaction:
                await marks.put(transaction, mark, asked=begun_at)
        await self._fetch_unknown(repository)

    def _is_known(self, mark: ActivityMark, fingerprint: str) -> bool:
        """Whether the feed was read for what is listed now, and is not due."""
        if self._due is None:
            return mark.fingerprint == fingerprint
        return mark.repository_id not in self._due and _listed(mark.fingerprint) == _listed(fingerprint)

    async def _read(self, repository: MarkedRepository[ActivityMark], fingerprint: str, begun_at: datetime) -> None:
        """Reads new entries of the feed.

        Nearly every entry also changes the list of pull requests. While the list has not changed, the feed is requested
        only once a day, for the exception: an approval of a closed pull request.
        """
        mark, bound = repository.mark, self._workspace.since
        attempts = None if mark.fallback is None else _ATTEMPTS_AFTER_A_FAILURE
        if mark.walk_cursor is not None:
            whole = mark.synced_to is None and self._workspace.is_continued(mark.walk_begun_at)
            whole = whole and reaches_back_to(mark.walk_bound, bound)
            try:
                mark = await self._walk(repository, mark, begun_at=mark.walk_begun_at if whole else None)
                if whole:
                    return  # as a walk that was not interrupted
            except (BadRequest, NotFound):
                # The lifetime of a cursor is undocumented: start over.
                mark = replace(mark, walk_cursor=None, walk_head=None, older=None)
        elif self._is_known(mark, fingerprint) and reaches_back_to(mark.bound, bound):
            return
        mark = await self._go_further_back(repository, mark)
        begun = replace(
            mark, walk_head=None, walk_begun_at=begun_at, walk_bound=bound, fallback=None, fingerprint=fingerprint
        )
        await self._walk(repository, begun, attempts, begun_at=begun_at)

    async def _go_further_back(self, repository: Repository, mark: ActivityMark) -> ActivityMark:
        """After the bound has moved back: resumes the walk that ended at the old bound, if its cursor still works.

        Otherwise the walk from the newest entry goes down to the new bound.
        """
        bound = self._workspace.since
        if mark.synced_to is None or reaches_back_to(mark.bound, bound):
            return mark
        if mark.since is not None and mark.bound is not None and mark.since > mark.bound:
            return replace(mark, bound=bound)  # the feed ended before the old bound
        if mark.older is None:
            return mark
        try:
            begun = replace(mark, walk_cursor=mark.older, walk_head=None, walk_bound=bound)
            return await self._walk(repository, begun, must_overlap=True)
        except (BadRequest, NotFound):
            return replace(mark, walk_cursor=None, walk_head=None, older=None)

    async def _walk(
        self,
        repository: Repository,
        mark: ActivityMark,
        attempts: int | None = None,
        *,
        must_overlap: bool = False,
        begun_at: datetime | None = None,
    ) -> ActivityMark:
        """Walks through the feed, down to the watermark or to the bound; returns the mark at its end.

        `begun_at`: when a walk began that leaves nothing to ask for.

        A walk that `must_overlap` ends at once unless it begins with stored entries.
        """
        first = mark.synced_to is None
        further = first or not reaches_back_to(mark.bound, mark.walk_bound)
        stop = mark.walk_bound if further or mark.synced_to is None else overlapping(mark.synced_to)
        seen = None if first else Seen(whole=False)
        if first and mark.walk_cursor is None:
            again = await feeds.has_activities(self._workspace.warehouse, repository.id)
            seen = Seen(whole=True) if again else None
        oldest: datetime | None = None
        link = mark.walk_cursor
        if further:
            mark = replace(mark, since=mark.walk_bound)
        async with (
            _UnstoredPages(self._limit) as unstored,
            aclosing(self._pages(repository, mark, attempts, unstored=unstored, to_the_end=stop is None)) as walk,
        ):
            async for pages in walk:
                entries = [entry for page in pages for entry in frames.entries(page.values)]
                if must_overlap and not _overlaps(entries, mark.bound):
                    # The cursor has moved: entries may be missing between the stored ones and this page.
                    return replace(mark, walk_cursor=None, walk_head=None, older=None)
                must_overlap = False
                dates = [entry.date for entry in entries]
                if mark.walk_head is None:
                    mark = replace(mark, walk_head=newest_of(dates, pages[0].asked_at))
                oldest = min(dates, default=oldest)
                ends = pages[-1].next is None
                over = ends or reaches_below(dates, stop)
                forgotten_since = None if further or not ends else await self._forgotten_since(repository, stop, oldest)
                if ends and (further or forgotten_since):
                    mark = replace(mark, since=_begin(mark.since, oldest or pages[-1].asked_at))
                if further:
                    entries = [entry for entry in entries if stop is None or entry.date >= stop]
                    mark = replace(mark, older=_resumable(mark.older, link, entries, ends=ends))
                link = pages[-1].next
                mark = _ended(mark, further=further) if over else replace(mark, walk_cursor=link)
                if seen is not None and seen.whole:
                    seen.oldest = later(oldest, stop) if oldest else None
                fetched = NewEntries(repository, entries, pages[0].asked_at, not first)
                await self._commit(Walked(fetched, mark, seen, over, forgotten_since, begun_at if over else None))
                unstored.stored(len(pages))
                if over:
                    break
        return mark

    async def _forgotten_since(
        self, repository: Repository, stop: datetime | None, oldest: datetime | None
    ) -> datetime | None:
        """`stop` where the feed now ends before it, at `oldest`, though older entries are stored."""
        if stop is None or (oldest is not None and oldest < stop):
            return None
        return stop if await feeds.has_activities(self._workspace.warehouse, repository.id, before=oldest) else None

    def _pages(
        self,
        repository: Repository,
        mark: ActivityMark,
        attempts: int | None,
        *,
        unstored: _UnstoredPages,
        to_the_end: bool,
    ) -> AsyncGenerator[list[Page], None]:
        endpoint = endpoints.activity(self._workspace.slug, repository.source_id)
        walk = cursor(self._workspace.client, endpoint, start=mark.walk_cursor, attempts=attempts)
        pages = unstored.requested(_shortened(walk))
        return ahead(pages) if to_the_end else one_by_one(pages)

    async def _store(self, batch: Sequence[Walked]) -> None:
        async with self._workspace.warehouse.transaction() as transaction:
            stored = await store_entries(transaction, self._workspace, [walked.fetched for walked in batch])
            for walked, ids in zip(batch, stored, strict=True):
                if walked.forgotten_since is not None:
                    await feeds.flag_forgotten(transaction, walked.fetched.repository.id, walked.forgotten_since)
                await marks.put(transaction, walked.mark, asked=walked.asked)
                if walked.seen is not None:
                    walked.seen.ids.update(ids)
                    repository, seen = walked.fetched.repository, walked.seen
                    if walked.over and (seen.oldest is not None or not seen.whole):
                        await feeds.flag_unseen_activities(transaction, repository.id, seen.ids, seen.oldest)

    async def _fetch_unknown(self, repository: Repository) -> None:
        """Fetches pull requests that the feed names and the list did not contain."""
        numbers = await stale.pulls_not_stored(self._workspace.warehouse, repository.id)
        await fetch_each(self._workspace, self._report, repository, numbers)


async def _shortened(pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
    """The pages without what is not stored: many wait to be stored while others are requested."""
    async for page in pages:
        yield replace(page, values=[frames.shortened(value) for value in page.values])


def _listed(fingerprint: str | None) -> str:
    """The part of a fingerprint that says what is listed, without the day."""
    return (fingerprint or "").partition(" ")[2]


def _overlaps(entries: Sequence[Entry], bound: datetime | None) -> bool:
    """Whether the newest of these entries is stored, so that none is missing between them and the stored ones."""
    return bound is None or (bool(entries) and entries[0].date >= bound)


def _resumable(before: str | None, link: str | None, within: Sequence[Entry], *, ends: bool) -> str | None:
    """The cursor at which a later walk can resume below the bound: of the last page that begins within it."""
    if ends:
        return None
    return link if within else before


def _begin(since: datetime | None, oldest: datetime) -> datetime:
    """The time from which on the feed is complete; it need not reach back to the first pull request."""
    return max([oldest, *([since] if since else [])])


def _ended(mark: ActivityMark, *, further: bool) -> ActivityMark:
    return replace(
        mark,
        synced_to=later(mark.synced_to, mark.walk_head),
        full_head=later(mark.full_head, mark.walk_head) if further else mark.full_head,
        bound=mark.walk_bound,
        walk_cursor=None,
        walk_head=None,
    )


async def store_entries(
    transaction: Transaction, workspace: Workspace, fetched: Sequence[NewEntries]
) -> list[list[str]]:
    """Merges entries and the comments in them; remembers pull requests that the feed names for the first time.

    Returns the ids of the entries, for each of `fetched`.
    """
    asked_at = min(one.asked_at for one in fetched)
    import polars as pl  # noqa: PLC0415 - a sync loads it with its first rows

    by_repository = [
        (one, frames.activities(workspace.id, one.repository.id, one.entries, asked_at)) for one in fetched
    ]
    entries = [(one.repository, entry) for one in fetched for entry in one.entries]
    bodies = [
        (pull_id(repository, entry.number), entry.body) for repository, entry in entries if entry.kind == "comment"
    ]
    named = {
        pull_id(one.repository, entry.number): feeds.Told(one.repository.id, entry.number, one.known)
        for one in fetched
        for entry in one.entries
    }
    await feeds.remember(transaction, named)
    for known in (True, False):
        if frames_of := [frame for one, frame in by_repository if one.known is known]:
            await feeds.flag_opinions(transaction, pl.concat(frames_of), known=known)
    accounts = [entry.actor for _, entry in entries]
    await store_accounts(transaction, workspace, accounts, asked_at)
    await transaction.merge(merge.ACTIVITIES, pl.concat([frame for _, frame in by_repository]))
    await transaction.merge(workspace.merging(merge.COMMENTS), comments.comments(workspace.id, bodies, asked_at))
    await review_times.derive(transaction, named)
    return [frame["id"].to_list() for _, frame in by_repository]
