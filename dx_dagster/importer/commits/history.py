"""Commits of pull requests from the history of their repository, where it proves what the endpoint would answer.

The default branch is stored with all parents, so what a merge commit brought costs no request (`commit_proofs` says how
it is told). Sources beside the default branch (squashed, declined, open) are asked for fifty at a time: `/commits` with
repeated `include`.

That the endpoint does answer so is not taken for granted (its documentation says "empty if the source branch no longer
exists"): of every kind some are asked for all the same, the oldest first, for their branches are most likely gone.
Where an answer differs, the endpoint is asked for all of that kind; where it is empty, for all but the open ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio

from dx_dagster.bitbucket import (
    BadRequest,
    BitbucketError,
    Forbidden,
    NotFound,
    PagingInCircles,
    RefusedOrigin,
    Unavailable,
    cursor,
    endpoints,
)
from dx_dagster.frames import commits as frames
from dx_dagster.frames.commits import CommitRow
from dx_dagster.importer.accounts import store_accounts
from dx_dagster.importer.commits.ancestry import Ancestry
from dx_dagster.importer.commits.endpoint import Fetched, fetch, store, store_lists
from dx_dagster.importer.commits.proofs import CLOSED, can_be_told, missing, tell
from dx_dagster.importer.each_pull import PullRow
from dx_dagster.importer.workspace import Done, Report, Workspace, for_each, lacks_scope, note
from dx_dagster.warehouse.imported import commits, hashes, pulls
from dx_dagster.warehouse.imported.commits import Targets
from dx_dagster.warehouse.imported.marks import CommitsMark, MarkedRepository, with_marks
from dx_dagster.warehouse.imported.pulls import Heads

WORTHWHILE = 4
"""For fewer pull requests of a repository, its history is not looked at."""

INCLUDED = 50
"""Revisions asked for at once: well within the length of an address."""

STORED = 500
"""Pull requests of one transaction."""

CERTAIN = 3
"""So many answers of the endpoint must agree with the history before a kind is trusted."""

SAMPLED = 50
"""And one of so many afterwards."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

Item = TypeVar("Item")
Settled = tuple[PullRow, set[str]]


@dataclass
class Trust:
    """What the endpoint has shown of one kind of pull request."""

    agreed: int = 0
    since: int = 0
    broken: bool = False
    asking: anyio.Lock = field(default_factory=anyio.Lock)

    def choose(self, settled: Sequence[Settled]) -> Iterator[Settled]:
        """Those whose commits the endpoint is asked for, the oldest first."""
        wanted = CERTAIN - self.agreed
        for one in reversed(settled):
            self.since += 1
            if wanted > 0 or self.since >= SAMPLED:
                wanted -= 1
                self.since = 0
                yield one


@dataclass
class History:
    """One repository's commits, and the pull requests that are looked for in them."""

    repository: MarkedRepository[CommitsMark]
    rows: Sequence[PullRow]
    heads: Mapping[str, Heads]
    asked_at: datetime
    ancestry: Ancestry = field(default_factory=lambda: Ancestry(()))
    beside: dict[str, CommitRow] = field(default_factory=dict)
    pages_left: int = 0

    def forget(self) -> None:
        """The commits: those of all repositories together are much."""
        self.ancestry, self.beside = Ancestry(()), {}


class CommitGraph:
    def __init__(self, workspace: Workspace, report: Report, done: Done) -> None:
        self._workspace = workspace
        self._report = report
        self._done = done
        self._trust: dict[str, Trust] = defaultdict(Trust)
        self._forgets_branches = False
        self._targets = Targets(frozen=False, past=False)

    async def split(self, rows: Sequence[PullRow]) -> tuple[list[History], list[PullRow]]:
        """Those whose history may prove their commits, by repository; and those of which that is known not to be so."""
        warehouse = self._workspace.warehouse
        marked = await with_marks(warehouse, self._workspace.id, CommitsMark)
        complete = {one.id: one for one in marked if one.mark.synced_to is not None and one.mark.head}
        heads = await pulls.heads(warehouse, [row.id for row in rows])
        found: dict[str, list[PullRow]] = defaultdict(list)
        for row in rows:
            if (repository := complete.get(row.repository.id)) and can_be_told(heads[row.id], repository):
                found[repository.id].append(row)
        histories = [
            History(complete[one], of_it, {row.id: heads[row.id] for row in of_it}, self._workspace.now())
            for one, of_it in found.items()
            if len(of_it) >= WORTHWHILE
        ]
        in_history = {row.id for history in histories for row in history.rows}
        return histories, [row for row in rows if row.id not in in_history]

    async def take(self, histories: Sequence[History]) -> list[PullRow]:
        """Stores the commits of those whose history proves them; returns the others, last changed first.

        Raises:
            BitbucketError: a credential lacks a scope, or none is left.
        """
        taken: set[str] = set()
        if histories:
            self._targets = await commits.targets(self._workspace.warehouse, self._workspace.id)

        async def work(history: History) -> None:
            taken.update(await self._take(history))

        # Not more at a time than can ask: each holds a repository's whole history.
        await for_each(histories, work, self._workspace.client.max_in_flight)
        left = [row for history in histories for row in history.rows if row.id not in taken]
        return sorted(left, key=lambda row: row.updated_at or _LONG_AGO, reverse=True)

    async def _take(self, history: History) -> set[str]:
        """The ids of the pull requests of one repository that were stored."""
        history.ancestry = Ancestry(await commits.graph(self._workspace.warehouse, history.repository.id))
        found: list[PullRow] = []
        beside: list[PullRow] = []
        for row in history.rows:
            (beside if missing(history.heads[row.id], history.ancestry) else found).append(row)
        # Where a branch beside the default one has a long history of its own, asking one by one is cheaper.
        history.pages_left = max(2, len(beside) // 3)
        for batch in _batches(beside, INCLUDED):
            if not await self._fetch(history, batch):
                break
            found += batch
        taken = await self._settle(history, found)
        history.forget()
        return taken

    async def _fetch(self, history: History, batch: Sequence[PullRow]) -> bool:
        """Commits that these sources and merges reach and the default branch does not; False where there is no end."""
        wanted = dict.fromkeys(sha for row in batch for sha in missing(history.heads[row.id], history.ancestry))
        values: list[dict[str, Any]] = []
        while wanted:
            endpoint = endpoints.commits(
                self._workspace.slug, history.repository.source_id, list(wanted), [history.repository.mark.head or ""]
            )
            try:
                async for page in cursor(self._workspace.client, endpoint):
                    history.pages_left -= 1
                    values += page.values
                    if page.next is not None and history.pages_left <= 0:
                        return False
                break
            except NotFound as error:
                # Bitbucket names the revisions that it no longer has; the others may be asked for again.
                gone = {sha for sha in wanted if sha in error.revisions}
                if not gone:
                    return self._give_up(history, error)
                wanted = {sha: None for sha in wanted if sha not in gone}
            except (Forbidden, BadRequest, PagingInCircles, RefusedOrigin, Unavailable) as error:
                if lacks_scope(error):
                    raise
                return self._give_up(history, error)
        history.ancestry.add((value["hash"], frames.parents(value)) for value in values if value.get("hash"))
        history.beside.update((row.sha, row) for row in frames.rows(self._workspace.id, values))
        async with self._workspace.warehouse.transaction() as transaction:
            await store_accounts(transaction, self._workspace, frames.accounts(values), history.asked_at)
        return True

    def _give_up(self, history: History, error: BitbucketError) -> bool:
        slug = history.repository.slug
        note(self._workspace, self._report, f"{slug}: commits are asked for pull request by pull request ({error})")
        return False

    async def _settle(self, history: History, rows: Sequence[PullRow]) -> set[str]:
        kinds: dict[str, list[Settled]] = defaultdict(list)
        for batch in _batches(rows, STORED):
            await anyio.lowlevel.checkpoint()  # ten thousands take seconds, in which others want to go on
            for row in batch:
                if (told := tell(history.heads[row.id], history.ancestry, self._targets)) is not None:
                    kind, hashes = told
                    kinds[kind].append((row, hashes))
        asked: set[str] = set()

        async def compare(kind: str) -> None:
            asked.update(await self._compare(kind, kinds[kind]))

        # Those whose branch is closed first: what the endpoint says of them matters for the others too.
        for closed in (True, False):
            await for_each([kind for kind in kinds if kind.endswith(CLOSED) is closed], compare, len(kinds))
        sure = [
            one
            for kind, settled in kinds.items()
            if not self._is_broken(kind)
            for one in settled
            if one[0].id not in asked
        ]
        for told_for_sure in _batches(sure, STORED):
            await self._store(history, told_for_sure)
        await self._complete_hashes(history, rows)
        self._done.add(len(sure) + len(asked))
        return asked | {row.id for row, _ in sure}

    async def _compare(self, kind: str, settled: Sequence[Settled]) -> set[str]:
        """Asks the endpoint for some, and whether it says the same; returns the ids of those asked."""
        trust = self._trust[kind]
        if trust.agreed >= CERTAIN:
            return await self._ask(kind, trust, settled)
        async with trust.asking:  # the others wait for what the first answers say
            return await self._ask(kind, trust, settled)

    async def _ask(self, kind: str, trust: Trust, settled: Sequence[Settled]) -> set[str]:
        if self._is_broken(kind):
            return set()
        chosen = {row.id: (row, hashes) for row, hashes in trust.choose(settled)}
        answers: list[Fetched] = []

        async def ask(row: PullRow) -> None:
            try:
                answers.append(await fetch(self._workspace, row))
            except (Forbidden, NotFound, BadRequest, PagingInCircles, RefusedOrigin, Unavailable) as error:
                if lacks_scope(error):
                    raise

        await for_each([row for row, _ in chosen.values()], ask, CERTAIN)
        if answers:
            await store(self._workspace, answers)
        for fetched in answers:
            if {value.get("hash") for value in fetched.values or ()} == chosen[fetched.row.id][1]:
                trust.agreed += 1
            else:
                trust.broken = True
                self._doubt(fetched.row, kind, empty=not fetched.values)
        return {fetched.row.id for fetched in answers}

    def _is_broken(self, kind: str) -> bool:
        return self._trust[kind].broken or (self._forgets_branches and kind != "open")

    def _doubt(self, row: PullRow, kind: str, *, empty: bool) -> None:
        self._forgets_branches |= empty and kind != "open"
        message = f"commits of {kind} pull requests are asked for one by one: the history of {row.repository.slug}"
        note(self._workspace, self._report, f"{message} and the endpoint differ about #{row.number}")

    async def _store(self, history: History, sure: Sequence[Settled]) -> None:
        wanted = {sha for _, hashes in sure for sha in hashes if sha not in history.beside}
        stored = await commits.commits(self._workspace.warehouse, history.repository.id, wanted)
        # A commit that is gone since then was rewritten away: the next import asks again.
        lists = [
            (row, [history.beside.get(sha) or stored[sha] for sha in hashes])
            for row, hashes in sure
            if all(sha in history.beside or sha in stored for sha in hashes)
        ]
        async with self._workspace.warehouse.transaction() as transaction:
            await store_lists(transaction, lists, history.asked_at)

    async def _complete_hashes(self, history: History, rows: Iterable[PullRow]) -> None:
        """Whole hashes in the place of the short ones that pull requests carry."""
        whole = [
            (row.id, sha)
            for row in rows
            for short in (history.heads[row.id].source, history.heads[row.id].merge)
            if (sha := history.ancestry.find(short)) and sha != short
        ]
        for batch in _batches(whole, STORED):
            async with self._workspace.warehouse.transaction() as transaction:
                await hashes.complete(transaction, batch)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
