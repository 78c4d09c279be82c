"""The workspace that every step of an import works with: its client, its database and its options."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from dx_dagster.bitbucket import BitbucketClient
from dx_dagster.frames import identifiers
from dx_dagster.frames.reading import Json
from dx_dagster.importer.growing_limit import GrowingLimit
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.imported import bounds, repositories, sessions
from dx_dagster.warehouse.imported.bounds import Wanted
from dx_dagster.warehouse.imported.marks import Pace, Repository
from dx_dagster.warehouse.imported.sessions import Session
from dx_dagster.warehouse.merge import Merge, overriding

_STORING = 24
# Items at once when a process begins, and one more for so many requests. A process was killed before: it may be again.
_AT_FIRST = 4, 10
_AT_FIRST_AFTER_A_KILL = 1, 25


class Listener(Protocol):
    """Receives the progress and the warnings of an import. `counted` says what `done` and `total` are numbers of."""

    def progress(self, step: str, done: int, total: int, requests: int, counted: str) -> None: ...

    def warning(self, message: str) -> None: ...


@dataclass
class NewAccounts:
    """Counts accounts stored for the first time, including those of transactions that were rolled back."""

    count: int = 0


@dataclass(frozen=True)
class Workspace:
    """One workspace, with the client and the database of its import.

    Attributes:
        slug: name of the workspace in URLs.
        id: of its row; empty until the repositories step has stored one.
        full: fetch everything again, whatever the marks say.
        since: lower bound of the import, which every sync keeps; None for everything.
        wanted: the bound given with this sync.
        pace: which repositories a scheduled sync asks; None to ask all.
        hurried: a sync that leaves to the next one what the requests left are not enough for.
        reconcile: pipelines created within this time are listed again.
        proves_since: since when deliveries are believed to have told every change, in a sync that proves it.
        session: the session of the sync, where it has one.
        new_accounts: accounts stored through this object and its copies.
    """

    slug: str
    id: str
    client: BitbucketClient
    warehouse: Warehouse
    listener: Listener
    full: bool = False
    since: datetime | None = None
    wanted: Wanted | None = None
    pace: Pace | None = None
    hurried: bool = False
    reconcile: timedelta | None = None
    proves_since: datetime | None = None
    session: Session | None = None
    new_accounts: NewAccounts = field(default_factory=NewAccounts)

    def now(self) -> datetime:
        """The time by the database's clock, which all importing processes share."""
        return self.warehouse.clock.now()

    def merging(self, how: Merge) -> Merge:
        """How this import merges rows that have a date: with `--full`, the time of the request decides instead."""
        return overriding(how) if self.full else how

    @property
    def continued_from(self) -> datetime | None:
        """Since when completed work need not be done again: the begin of a killed sync that this one continues."""
        asks_all = self.full or self.reconcile is not None
        return None if asks_all or self.session is None else self.session.continued_from

    def is_continued(self, begun_at: datetime | None) -> bool:
        """Whether something that began then is part of the killed sync that this one continues."""
        return self.continued_from is not None and begun_at is not None and begun_at >= self.continued_from

    def has_ended(self, step: str) -> bool:
        """Whether the step ended in the killed sync that this one continues."""
        return self.continued_from is not None and self.session is not None and step in self.session.steps

    async def end_step(self, transaction: Transaction, step: str) -> None:
        """Records, in the last transaction of a step, that it ended: a sync that goes on need not repeat it."""
        if self.session is not None:
            await sessions.step_ended(transaction, self.session, step)

    async def keep_commits(self, transaction: Transaction, repository_id: str, values: Sequence[Json]) -> None:
        """Keeps fetched commits until it is known whose they are: after a kill they need not be fetched again."""
        if self.session is not None and values:
            await sessions.keep_commits(transaction, self.session, repository_id, values)

    async def kept_commits(self, repository_id: str) -> list[Json]:
        """The commits that a killed sync kept, where this one continues it. A commit never changes."""
        if self.continued_from is None or self.session is None:
            return []
        return await sessions.kept_commits(self.warehouse, self.session, repository_id)

    async def drop_commits(self, transaction: Transaction, repository_id: str) -> None:
        """Forgets the kept commits of a repository, whose pull requests are stored."""
        if self.session is not None:
            await sessions.drop_commits(transaction, self.session, repository_id)

    @property
    def most_at_once(self) -> int:
        """How many items to work on concurrently: some are being stored while others are requested."""
        return self.client.max_in_flight + _STORING

    @property
    def at_once(self) -> int:
        """The same at present: a kill makes the next process repeat no more than a share of this one's requests."""
        if self.session is None:
            return self.most_at_once
        first, share = _AT_FIRST if self.session.continued_from is None else _AT_FIRST_AFTER_A_KILL
        return min(self.most_at_once, first + self.client.requests // share)

    @contextmanager
    def unstored(self) -> Iterator[GrowingLimit]:
        """Limits what is requested and not stored yet to `at_once`: a kill makes the next process request it again."""
        limit = GrowingLimit(lambda: self.at_once)
        with self.client.calling(limit.grow):
            yield limit


class NotImportedError(Exception):
    """A step was started before the step that it builds on has ever run."""

    def __init__(self, workspace: str) -> None:
        super().__init__(
            f"Nothing of workspace {workspace} is imported yet: materialize bitbucket/repositories first, or all "
            f"assets together (dx-dagster sync {workspace})."
        )


async def open_workspace(
    slug: str,
    client: BitbucketClient,
    warehouse: Warehouse,
    listener: Listener,
    *,
    full: bool = False,
    wanted: Wanted | None = None,
    pace: Pace | None = None,
    hurried: bool = False,
    reconcile: timedelta | None = None,
    proves_since: datetime | None = None,
    session: Session | None = None,
) -> Workspace:
    """Opens the workspace, stored or not, and moves its bound to the `wanted` one.

    Raises:
        BoundRefusedError: the bound cannot be moved like that.
    """
    slug = await connections.stored_name(warehouse, slug)  # the partition key may differ in case
    async with warehouse.transaction() as transaction:
        await warehouse.set_clock(transaction)  # clocks drift apart during a long run
        workspace_id = await repositories.workspace_id(transaction, slug)
        since = await bounds.settle(transaction, workspace_id, wanted)
    return Workspace(
        slug,
        workspace_id or "",
        client,
        warehouse,
        listener,
        full=full,
        since=since,
        wanted=wanted,
        pace=pace,
        hurried=hurried,
        reconcile=reconcile,
        proves_since=proves_since,
        session=session,
    )


def require_id(workspace: Workspace) -> str:
    """The id of the workspace's row.

    Raises:
        NotImportedError: the repositories step has never run.
    """
    if not workspace.id:
        raise NotImportedError(workspace.slug)
    return workspace.id


def pull_id(repository: Repository, number: int) -> str:
    return identifiers.of_pull(repository.id, number)
