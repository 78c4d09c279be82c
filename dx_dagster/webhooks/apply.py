"""A workspace's inbox into its tables: just what the deliveries say is stale, and no more requests than that takes.

A delivery never has the last word. It may come late, twice, before one that happened earlier, or about something that
is gone: what it shows is stored only where it is newer than what is stored, and everything else is asked of Bitbucket.
So it does not matter how often a delivery is applied; it is marked as applied when all that it made stale is stored.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from dx_dagster.bitbucket import (
    BitbucketClient,
    BitbucketError,
    CredentialsExhausted,
    Forbidden,
    Gone,
    NotFound,
    RateLimited,
    Unavailable,
)
from dx_dagster.frames.reading import link, time
from dx_dagster.importer import comments, pipelines
from dx_dagster.importer.absence import Doubt, NothingReadError
from dx_dagster.importer.activity import feed
from dx_dagster.importer.activity import step as activity
from dx_dagster.importer.commits import default_branch
from dx_dagster.importer.commits import endpoint as pull_commits
from dx_dagster.importer.each_pull import PullRow, pull_rows
from dx_dagster.importer.members import import_members
from dx_dagster.importer.pull_requests import fetch_one, store
from dx_dagster.importer.repositories import fetch_repository, import_repositories
from dx_dagster.importer.workspace import (
    Report,
    Workspace,
    for_each,
    is_away,
    lacks_scope,
    open_workspace,
    pull_id,
)
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import LockLostError
from dx_dagster.warehouse.imported import hashes, marks, pulls, stale
from dx_dagster.warehouse.imported.marks import (
    ActivityMark,
    AnyMark,
    CommitsMark,
    MarkedRepository,
    PipelinesMark,
    Repository,
)
from dx_dagster.warehouse.merge import cannot_be
from dx_dagster.warehouse.schema import bitbucket as tables
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster.warehouse.webhooks.inbox import Event
from dx_dagster.webhooks import payloads
from dx_dagster.webhooks.payloads import PullNews, RepositoryNews

KIND = "webhooks"
AT_ONCE = 500
# From so many pull requests on, the repository's feed is fewer requests than each one's own activity.
_FEED_PAYS_FROM = 5

Item = TypeVar("Item")


@dataclass
class Refreshed:
    """What became of the deliveries that a refresh took.

    Attributes:
        outcomes: how many were settled, by outcome.
        failed: how many could not be applied and come again.
        set_aside: how many were given up.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    set_aside: int = 0

    @property
    def taken(self) -> int:
        return self.outcomes.total() + self.failed


async def refresh(
    workspace: Workspace, run: str, result: Refreshed, for_pipelines: BitbucketClient | None = None
) -> int:
    """Applies the oldest deliveries that are due; returns how many it took.

    `run` is remembered as who applied them. `for_pipelines` has the credentials for pipelines, where these differ.
    While syncs can read nothing, none is taken: what Bitbucket answers then would settle them for good.

    Raises:
        BitbucketError: nothing can be asked at the moment; the deliveries come again.
    """
    warehouse = workspace.warehouse
    connection = await connections.find(warehouse, workspace.slug)
    if connection is not None and connection.last_error is not None:
        await inbox.postpone(warehouse, workspace.slug, connection.last_error)
        return 0
    result.set_aside += await inbox.set_hopeless_aside(warehouse, workspace.slug)
    events = await inbox.take(warehouse, workspace.slug, AT_ONCE)
    if not events:
        return 0
    settled: set[int] = set()
    try:
        if not workspace.id:
            await import_repositories(workspace)
            workspace = await open_workspace(workspace.slug, workspace.client, warehouse, workspace.listener)
        await _Batch(workspace, events, for_pipelines or workspace.client).apply(run, result, settled)
    except BitbucketError as error:
        async with warehouse.transaction() as transaction:
            await inbox.give_back(transaction, {event.id for event in events} - settled, str(error))
        raise
    return len(events)


class _Batch:
    """Some deliveries on their way. What fails does so alone: each step goes on with the others."""

    def __init__(self, workspace: Workspace, events: Sequence[Event], for_pipelines: BitbucketClient) -> None:
        self._workspace = workspace
        self._for_pipelines = replace(workspace, client=for_pipelines)
        self._report = Report(KIND)
        self._news, self._nothing = payloads.read(events)
        self._refused: dict[str, list[int]] = {}
        self._failed: dict[int, Exception] = {}
        self._found: list[tuple[RepositoryNews, Repository]] = []
        self._people_before = self._people_written()
        self._moved: set[str] = set()  # repositories whose default branch was asked for
        self._doubt = Doubt(workspace)

    async def apply(self, run: str, result: Refreshed, settled: set[int]) -> None:
        """Adds to `settled` the deliveries of which it is recorded what became of them."""
        await self._repositories()
        await self._pull_requests()
        await self._activity()
        await self._comments()
        await self._branches()
        await self._commits()
        await self._runs()
        await self._people()
        await self._settle(run, result, settled)

    # -- repositories -------------------------------------------------------------------------------------------------

    async def _repositories(self) -> None:
        """Asks for those that changed or are not known, then finds all of them in the database."""
        known = await self._stored()
        stale = [one for one in self._news if one.itself or one.name not in known]
        work = partial(self._fetch_repository, known)
        await self._each(stale, work, lambda news: news.all_events)
        known = await self._stored()
        for news in self._news:
            repository = known.get(news.name)
            if repository is not None and repository.accessible:
                self._found.append((news, repository))
            elif not self._has_failed(news.all_events):
                reason = "the repository is not imported" if repository is None else "the repository cannot be read"
                self._refused.setdefault(reason, []).extend(news.all_events)

    async def _stored(self) -> dict[str, Repository]:
        """The workspace's repositories by uuid and slug."""
        found = await marks.repositories(self._workspace.warehouse, self._workspace.id)
        return {one.slug: one for one in found} | {one.source_id: one for one in found}

    async def _with_marks(self, kind: type[AnyMark]) -> dict[str, MarkedRepository[AnyMark]]:
        """The workspace's repositories by uuid and slug, with their marks of one kind."""
        found = await marks.with_marks(self._workspace.warehouse, self._workspace.id, kind)
        return {one.slug: one for one in found} | {one.source_id: one for one in found}

    async def _fetch_repository(self, known: Mapping[str, Repository], news: RepositoryNews) -> None:
        """Stores the repository; its uuid is its name from then on."""
        try:
            news.name = await fetch_repository(self._workspace, news.name, self._doubt) or news.name
        except Forbidden as error:
            if lacks_scope(error) or (news.name in known and known[news.name].accessible):
                raise
            # It was closed to us before: asking again would not open it.

    # -- pull requests ------------------------------------------------------------------------------------------------

    async def _pull_requests(self) -> None:
        """Stores what deliveries show where it is newer, and asks for pull requests of which they show too little."""
        ask: list[tuple[Repository, PullNews]] = []
        for news, repository in self._found:
            stored = await pulls.updated(self._workspace.warehouse, repository.id, news.pulls)
            ask += [
                (repository, pull)
                for pull in news.pulls.values()
                if not await self._take_from_payload(repository, pull, stored.get(pull.number))
            ]

        async def work(item: tuple[Repository, PullNews]) -> None:
            await self._fetch_one(item[0], item[1].number)

        await self._each(ask, work, lambda item: item[1].events)

    async def _fetch_one(self, repository: Repository, number: int) -> None:
        """Stores a pull request, or that it is gone, be it with its whole repository."""
        try:
            await fetch_one(self._workspace, repository, number)
        except NotFound:
            await fetch_repository(self._workspace, repository.source_id, self._doubt)

    async def _take_from_payload(self, repository: Repository, pull: PullNews, stored: datetime | None) -> bool:
        """Whether that was enough. What is as new as the stored version may be older all the same: ask."""
        newest = pull.newest()
        if newest is None:
            return False
        value, received_at = newest
        if f"/{repository.slug}/" not in (link(value) or ""):
            return False  # one of both is from before the repository was renamed
        updated_at = time(value.get("updated_on"))
        if any(moment and cannot_be(moment, self._workspace.now()) for moment in (updated_at, stored)):
            return False  # which is newer, a date that cannot be right does not tell
        if updated_at is None or (stored is not None and updated_at <= stored):
            return updated_at is not None and stored is not None and updated_at < stored
        try:
            async with self._workspace.warehouse.transaction() as transaction:
                await store(transaction, self._workspace, repository, [value], received_at)
        except LockLostError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is odd about a payload, Bitbucket can be asked instead
            self._workspace.listener.warning(f"{repository.slug}#{pull.number}: its payload is not used: {error}")
            return False
        return True

    def _ids(self, *, comments_only: bool = False) -> list[str]:
        return [
            pull_id(repository, pull.number)
            for news, repository in self._found
            for pull in news.pulls.values()
            if (pull.comments or not comments_only) and not self._has_failed(pull.events)
        ]

    def _events_of(self, row: PullRow) -> list[int]:
        return [
            event
            for news, repository in self._found
            if repository.id == row.repository.id and row.number in news.pulls
            for event in news.pulls[row.number].events
        ]

    async def _each_pull(self, rows: Sequence[PullRow], work: Callable[[PullRow], Awaitable[None]]) -> None:
        async def one(row: PullRow) -> None:
            try:
                await work(row)
            except NotFound:
                await self._fetch_one(row.repository, row.number)

        await self._each(rows, one, self._events_of)

    async def _activity(self) -> None:
        many = {repository.id for news, repository in self._found if len(news.pulls) >= _FEED_PAYS_FROM}
        with_marks = await self._with_marks(ActivityMark) if many else {}
        feeds = [(news, with_marks[one.source_id]) for news, one in self._found if one.id in many]

        reading = feed.Feeds(self._workspace, self._report)

        async def read(item: tuple[RepositoryNews, MarkedRepository[ActivityMark]]) -> None:
            await reading.read(item[1])

        await self._each(feeds, read, lambda item: item[0].all_events)
        ids = self._ids()
        rows = await pull_rows(self._workspace, partial(stale.pulls_not_told_by_feeds, fed=many), ids)
        await self._each_pull(rows, lambda row: activity.import_one(self._workspace, row))

    async def _comments(self) -> None:
        ids = self._ids(comments_only=True)
        rows = await pull_rows(self._workspace, stale.pulls_without_comments, ids)

        async def work(row: PullRow) -> None:
            await comments.store(self._workspace, [await comments.fetch(self._workspace, row)])

        await self._each_pull(rows, work)

    # -- commits, pipelines and people --------------------------------------------------------------------------------

    async def _branches(self) -> None:
        """Default branches that were pushed to, or that a pull request was merged into."""
        merged = await pull_rows(self._workspace, stale.merged_pulls_with_short_hashes, self._ids())
        into = {row.repository.id for row in merged}
        with_marks = await self._with_marks(CommitsMark)
        moved = [
            (news, with_marks[repository.source_id])
            for news, repository in self._found
            if repository.default_branch is not None
            and (repository.id in into or {repository.default_branch, None} & news.pushed)
        ]

        async def work(item: tuple[RepositoryNews, MarkedRepository[CommitsMark]]) -> None:
            await default_branch.import_branch(self._workspace, self._report, item[1])

        await self._each(moved, work, lambda item: item[0].all_events)
        self._moved = {repository.id for _, repository in moved}

    async def _commits(self) -> None:
        """Commits of the pull requests, and of those whose target has moved below them."""
        ids = self._ids()
        rows = await pull_rows(self._workspace, stale.pulls_without_commits, ids, self._moved)

        async def work(row: PullRow) -> None:
            await pull_commits.store(self._workspace, [await pull_commits.fetch(self._workspace, row)])

        await self._each_pull(rows, work)
        async with self._workspace.warehouse.transaction() as transaction:
            await hashes.resolve(transaction, self._moved | {row.repository.id for row in rows})
        short = await pull_rows(self._workspace, stale.pulls_with_short_hashes, ids, self._moved)
        await self._each_pull(short, lambda row: pull_commits.resolve(self._workspace, row))

    async def _runs(self) -> None:
        """Pipelines. What the credentials may not see holds no other delivery up; a sync says what they lack."""
        stale = [news for news, _ in self._found if news.runs]
        with_marks = await self._with_marks(PipelinesMark) if stale else {}
        own = self._for_pipelines.client is not self._workspace.client

        async def work(news: RepositoryNews) -> None:
            try:
                numbers = {number for number in news.run_numbers if number is not None}
                if None in news.run_numbers:
                    await pipelines.import_runs(self._for_pipelines, with_marks[news.name])
                if numbers:
                    await pipelines.refresh_runs(self._for_pipelines, with_marks[news.name], numbers)
                async with self._workspace.warehouse.transaction() as transaction:
                    await hashes.resolve_pipelines(transaction, [with_marks[news.name].id])
            except (Forbidden, NotFound, Gone) as error:
                if lacks_scope(error):
                    self._refused.setdefault("pipelines cannot be read", []).extend(news.runs)
                elif not own:
                    await self._doubt.settle(error)
            except CredentialsExhausted:
                if not own:
                    raise
                self._refused.setdefault("pipelines cannot be read", []).extend(news.runs)

        await self._each(stale, work, lambda news: news.runs)

    def _people_written(self) -> int:
        return self._workspace.warehouse.written[tables.users.name].inserted

    async def _people(self) -> None:
        """Lists the members where somebody was met for the first time: no delivery tells who joined."""
        if self._people_written() == self._people_before:
            return
        try:
            await import_members(self._workspace)
        except BitbucketError as error:
            self._workspace.listener.warning(f"{KIND}: members are not listed before the next sync: {error}")

    # -- how it ended -------------------------------------------------------------------------------------------------

    async def _each(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Awaitable[None]],
        events_of: Callable[[Item], Collection[int]],
    ) -> None:
        """Does the work for each. An item that fails does so with its events; what concerns all is raised."""

        async def one(item: Item) -> None:
            try:
                await work(item)
            except (CredentialsExhausted, RateLimited, NothingReadError, LockLostError):
                raise
            except BitbucketError as error:
                if lacks_scope(error):
                    raise
                if isinstance(error, Forbidden | NotFound | Gone):
                    await self._doubt.settle(error)
                self._fail(events_of(item), error)
            except Exception as error:  # noqa: BLE001 - a delivery that breaks us must not hold up all the others
                self._fail(events_of(item), error)

        await for_each(items, one, self._workspace.at_once)

    def _fail(self, events: Iterable[int], error: Exception) -> None:
        self._workspace.listener.warning(f"{KIND}: {error}")
        self._failed |= dict.fromkeys(events, error)

    def _has_failed(self, events: Iterable[int]) -> bool:
        return any(event in self._failed for event in events)

    async def _settle(self, run: str, result: Refreshed, settled: set[int]) -> None:
        """Says of each delivery what became of it.

        Raises:
            Unavailable: Bitbucket is away, which is no delivery's fault.
        """
        unavailable = {event: error for event, error in self._failed.items() if isinstance(error, Unavailable)}
        away = unavailable if unavailable and await is_away(self._workspace) else {}
        failed = {event: error for event, error in self._failed.items() if event not in away}
        outcomes = {**self._nothing, **self._refused}
        others = {event for events in outcomes.values() for event in events} | self._failed.keys()
        asked = {event for news in self._news for event in news.all_events}
        outcomes["applied"] = sorted(asked - others)
        async with self._workspace.warehouse.transaction() as transaction:
            for outcome, events in outcomes.items():
                done = set(events) - self._failed.keys()
                await inbox.settle(transaction, done, run, outcome)
                result.outcomes[outcome] += len(done)
            for error in set(failed.values()):
                events = [event for event, its in failed.items() if its is error]
                result.set_aside += await inbox.fail(transaction, events, f"{type(error).__name__}: {error}")
        result.failed += len(failed)
        settled.update((asked | others) - away.keys())
        for error in away.values():
            raise error
