"""A repository's feed of what happened to its pull requests: one walk instead of a request for each of them.

The feed is newest first and opaque: no filter, no order of ours (BCLOUD-21067).
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

import polars as pl

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
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.pull_requests import fetch_one, later, newest_of, overlapping, reaches_below
from dx_dagster.importer.workspace import Report, Workspace, is_away, lacks_scope, note, pull_id
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import feeds, marks, pulls, review_times, stale
from dx_dagster.warehouse.imported.bounds import reaches_back_to
from dx_dagster.warehouse.imported.marks import ActivityMark, MarkedRepository, Repository

KIND = "activity"
_LOST_OR_CLOSED = (Forbidden, NotFound, Gone)
FEED_UNUSABLE = (BadRequest, *_LOST_OR_CLOSED, PagingInCircles, RefusedOrigin)
_ATTEMPTS_AFTER_A_FAILURE = 2


class Heard(NamedTuple):
    """Entries of one repository; `known` says that older ones are stored already."""

    repository: Repository
    entries: Sequence[Entry]
    asked_at: datetime
    known: bool = False


@dataclass
class Seen:
    """What a walk has met: ids of entries and, where it is through a whole feed, how far back it came."""

    whole: bool
    ids: set[str] = field(default_factory=set)
    oldest: datetime | None = None


class Walked(NamedTuple):
    """Some pages of a walk, to be stored with the mark that vouches for them.

    `seen` is of a walk through a feed that was read before, `over` whether this is its end. `forgotten_since` is where
    a walk should have come to that found the feed's end instead.
    """

    heard: Heard
    mark: ActivityMark
    seen: Seen | None
    over: bool
    forgotten_since: datetime | None = None


class Feeds:
    """Reads the feeds of a workspace's repositories; what comes together is stored together."""

    def __init__(self, workspace: Workspace, report: Report) -> None:
        self._workspace = workspace
        self._report = report
        self._commit = GroupCommit[Walked](self._store)

    async def read(self, repository: MarkedRepository[ActivityMark]) -> None:
        """Reads what is new in the feed, or notes that the pull requests must be asked themselves.

        Raises:
            BitbucketError: a credential lacks a scope, or Bitbucket is away.
        """
        workspace = self._workspace
        listed = await pulls.fingerprint(workspace.warehouse, repository.id)
        if listed == pulls.NO_PULLS and repository.mark.walk_cursor is None:
            return  # nor does its feed tell anything that would be stored
        fingerprint = f"{workspace.now().date()} {listed}"
        try:
            await self._read(repository, fingerprint)
        except (*FEED_UNUSABLE, Unavailable) as error:
            if lacks_scope(error) or (isinstance(error, Unavailable) and await is_away(workspace)):
                raise
            if isinstance(error, _LOST_OR_CLOSED) and repository.mark.fallback is None:
                # Else each of its pull requests would be asked in vain, and found to be gone.
                await workspace.client.get(endpoints.repository(workspace.slug, repository.source_id).path)
            message = f"{repository.slug}: the feed cannot be used, so each pull request is asked ({error})"
            note(workspace, self._report, message)
            # What it told is kept, for it may come back. One that answers nothing but errors is left alone until
            # something changes: tries take long.
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
                await marks.put(transaction, mark)
        await self._fetch_unknown(repository)

    async def _read(self, repository: MarkedRepository[ActivityMark], fingerprint: str) -> None:
        """Reads what is new in the feed.

        Nearly everything that it may hold shows in the list of pull requests too. Where that has not changed, the feed
        is asked once a day only, for what does not: an opinion about a pull request that is closed.
        """
        mark, bound = repository.mark, self._workspace.since
        attempts = None if mark.fallback is None else _ATTEMPTS_AFTER_A_FAILURE
        if mark.walk_cursor is not None:
            try:
                mark = await self._walk(repository, mark)
            except (BadRequest, NotFound):
                # Nobody promises that a cursor lives long: begin anew.
                mark = replace(mark, walk_cursor=None, walk_head=None, older=None)
        elif mark.fingerprint == fingerprint and reaches_back_to(mark.bound, bound):
            return
        mark = await self._go_further_back(repository, mark)
        begun = replace(mark, walk_head=None, walk_bound=bound, fallback=None, fingerprint=fingerprint)
        await self._walk(repository, begun, attempts)

    async def _go_further_back(self, repository: Repository, mark: ActivityMark) -> ActivityMark:
        """After the bound has moved: reads on where the walk down to the bound before ended, if that can be done.

        Where it cannot, the walk from the newest entry goes down to the new bound.
        """
        bound = self._workspace.since
        if mark.synced_to is None or reaches_back_to(mark.bound, bound):
            return mark
        if mark.since is not None and mark.bound is not None and mark.since > mark.bound:
            return replace(mark, bound=bound)  # the feed ended before: there is no more to read
        if mark.older is None:
            return mark
        try:
            begun = replace(mark, walk_cursor=mark.older, walk_head=None, walk_bound=bound)
            return await self._walk(repository, begun, must_overlap=True)
        except (BadRequest, NotFound):
            return replace(mark, walk_cursor=None, walk_head=None, older=None)

    async def _walk(
        self, repository: Repository, mark: ActivityMark, attempts: int | None = None, *, must_overlap: bool = False
    ) -> ActivityMark:
        """One way through the feed, down to what is known or to the bound; returns the mark at its end.

        One that `must_overlap` and does not begin with known entries ends at once.
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
        async with aclosing(self._pages(repository, mark, attempts, to_the_end=stop is None)) as walk:
            async for pages in walk:
                entries = [entry for page in pages for entry in frames.entries(page.values)]
                if must_overlap and not _overlaps(entries, mark.bound):
                    # Entries may lie between what is known and this page: the cursor has moved.
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
                heard = Heard(repository, entries, pages[0].asked_at, not first)
                await self._commit(Walked(heard, mark, seen, over, forgotten_since))
                if over:
                    break
        return mark

    async def _forgotten_since(
        self, repository: Repository, stop: datetime | None, oldest: datetime | None
    ) -> datetime | None:
        """`stop` where the feed's end, its `oldest` entry, is later and it held older ones before."""
        if stop is None or (oldest is not None and oldest < stop):
            return None
        return stop if await feeds.has_activities(self._workspace.warehouse, repository.id, before=oldest) else None

    def _pages(
        self, repository: Repository, mark: ActivityMark, attempts: int | None, *, to_the_end: bool
    ) -> AsyncGenerator[list[Page], None]:
        endpoint = endpoints.activity(self._workspace.slug, repository.source_id)
        pages = cursor(self._workspace.client, endpoint, start=mark.walk_cursor, attempts=attempts)
        return ahead(pages) if to_the_end else one_by_one(pages)

    async def _store(self, batch: Sequence[Walked]) -> None:
        async with self._workspace.warehouse.transaction() as transaction:
            stored = await store_entries(transaction, self._workspace, [walked.heard for walked in batch])
            for walked, ids in zip(batch, stored, strict=True):
                if walked.forgotten_since is not None:
                    await feeds.flag_forgotten(transaction, walked.heard.repository.id, walked.forgotten_since)
                await marks.put(transaction, walked.mark)
                if walked.seen is not None:
                    walked.seen.ids.update(ids)
                    repository, seen = walked.heard.repository, walked.seen
                    if walked.over and (seen.oldest is not None or not seen.whole):
                        await feeds.flag_unseen_activities(transaction, repository.id, seen.ids, seen.oldest)

    async def _fetch_unknown(self, repository: Repository) -> None:
        """Fetches pull requests that the feed knows and the list did not hold yet."""
        for number in await stale.pulls_not_stored(self._workspace.warehouse, repository.id):
            await fetch_one(self._workspace, repository, number)


def _overlaps(entries: Sequence[Entry], bound: datetime | None) -> bool:
    """Whether the first of these entries, newest first, are known: nothing lies between them and what is stored."""
    return bound is None or (bool(entries) and entries[0].date >= bound)


def _resumable(before: str | None, link: str | None, within: Sequence[Entry], *, ends: bool) -> str | None:
    """Where a later walk may go on below the bound: at the last page that begins within it."""
    if ends:
        return None
    return link if within else before


def _begin(since: datetime | None, oldest: datetime) -> datetime:
    """From when on the feed tells everything: nobody promises that it reaches back to the first pull request."""
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


async def store_entries(transaction: Transaction, workspace: Workspace, heard: Sequence[Heard]) -> list[list[str]]:
    """Merges entries and the comments that they carry; remembers pull requests that are heard of for the first time.

    Returns the ids of the entries, of each of `heard`.
    """
    asked_at = min(one.asked_at for one in heard)
    found = [(one, frames.activities(workspace.id, one.repository.id, one.entries, asked_at)) for one in heard]
    entries = [(one.repository, entry) for one in heard for entry in one.entries]
    said = [(pull_id(repository, entry.number), entry.body) for repository, entry in entries if entry.kind == "comment"]
    told_of = {
        pull_id(one.repository, entry.number): feeds.Told(one.repository.id, entry.number, one.known)
        for one in heard
        for entry in one.entries
    }
    await feeds.remember(transaction, told_of)
    for known in (True, False):
        if frames_of := [frame for one, frame in found if one.known is known]:
            await feeds.flag_opinions(transaction, pl.concat(frames_of), known=known)
    accounts = [entry.actor for _, entry in entries]
    await store_accounts(transaction, workspace, accounts, asked_at)
    await transaction.merge(merge.ACTIVITIES, pl.concat([frame for _, frame in found]))
    await transaction.merge(workspace.merging(merge.COMMENTS), comments.comments(workspace.id, said, asked_at))
    await review_times.derive(transaction, told_of)
    return [frame["id"].to_list() for _, frame in found]
