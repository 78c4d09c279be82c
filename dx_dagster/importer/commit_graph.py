"""Commits of pull requests from the history of their repository, where it proves what the endpoint would answer.

A pull request's commits are those that its source reaches and its target did not when it was merged. The default
branch is stored with all parents, so what a merge commit brought costs no request. Sources beside the default branch
(squashed, declined, open) are asked for fifty at a time: `/commits` with repeated `include`.

- Merged with a merge commit, rebased or squashed: the target was the merge's first parent.
- Fast-forwarded: the history holds no trace of where the target was. The head told with the pull request is it where
  the workspace's other merges show that this is frozen at the merge, and where there is but one commit above it.
- Open, declined or superseded: the target stood somewhere between the head told with the pull request and today's.
  Where both give the same commits, so does every head between them.
- A fork's commits are elsewhere: the endpoint is asked.

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
from dx_dagster.importer.ancestry import Ancestry
from dx_dagster.importer.branches import KIND
from dx_dagster.importer.pull_commits import Fetched, fetch, store, store_accounts, store_lists
from dx_dagster.importer.pulls import PullRow
from dx_dagster.importer.workspace import Report, Workspace, for_each, lacks_scope, note
from dx_dagster.warehouse import branches, pulls
from dx_dagster.warehouse.marks import Repository, repositories
from dx_dagster.warehouse.pulls import Heads

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

CLOSED = " (branch closed)"

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

    repository: Repository
    head: str
    ancestry: Ancestry
    heads: Mapping[str, Heads]
    asked_at: datetime
    beside: dict[str, CommitRow] = field(default_factory=dict)
    pages_left: int = 0


class CommitGraph:
    def __init__(self, workspace: Workspace, report: Report) -> None:
        self._workspace = workspace
        self._report = report
        self._trust: dict[str, Trust] = defaultdict(Trust)
        self._forgets_branches = False
        self._frozen = False
        self._done = 0
        self._total = 0

    async def take(self, rows: Sequence[PullRow]) -> list[PullRow]:
        """Stores the commits of those whose history proves them; returns the others, in the same order.

        Raises:
            BitbucketError: a credential lacks a scope, or none is left.
        """
        self._total = len(rows)
        marked = await repositories(self._workspace.warehouse, self._workspace.id, KIND)
        complete = {one.id: one for one in marked if one.mark.synced_to is not None and one.mark.head}
        by_repository: dict[str, list[PullRow]] = defaultdict(list)
        for row in rows:
            by_repository[row.repository.id].append(row)
        taken: set[str] = set()

        async def work(item: tuple[str, list[PullRow]]) -> None:
            taken.update(await self._take(complete[item[0]], item[1]))

        self._frozen = bool(rows) and await branches.targets_are_frozen(self._workspace.warehouse, self._workspace.id)
        worthwhile = [one for one in by_repository.items() if one[0] in complete and len(one[1]) >= WORTHWHILE]
        await for_each(worthwhile, work, self._workspace.at_once)
        return [row for row in rows if row.id not in taken]

    async def _take(self, repository: Repository, rows: list[PullRow]) -> set[str]:
        """The ids of the pull requests of one repository that were stored."""
        asked_at = datetime.now(UTC)
        warehouse = self._workspace.warehouse
        ancestry = Ancestry(await branches.graph(warehouse, repository.id))
        heads = await pulls.heads(warehouse, [row.id for row in rows])
        history = History(repository, repository.mark.head or "", ancestry, heads, asked_at)
        known: list[PullRow] = []
        beside: list[PullRow] = []
        for row in rows:
            if _can_be_told(heads[row.id], repository):
                (beside if _missing(heads[row.id], ancestry) else known).append(row)
        # Where a branch beside the default one has a long history of its own, asking one by one is cheaper.
        history.pages_left = max(2, len(beside) // 3)
        taken = await self._settle(history, known)
        for batch in _batches(beside, INCLUDED):
            if not await self._fetch(history, batch):
                break
            taken |= await self._settle(history, batch)
        return taken

    async def _fetch(self, history: History, batch: Sequence[PullRow]) -> bool:
        """Commits that these sources and merges reach and the default branch does not; False where there is no end."""
        wanted = dict.fromkeys(sha for row in batch for sha in _missing(history.heads[row.id], history.ancestry))
        values: list[dict[str, Any]] = []
        while wanted:
            endpoint = endpoints.commits(
                self._workspace.slug, history.repository.source_id, list(wanted), [history.head]
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
            await store_accounts(transaction, self._workspace, values, history.asked_at)
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
                if (told := tell(history.heads[row.id], history.ancestry, frozen=self._frozen)) is not None:
                    kind, hashes = told
                    kinds[kind].append((row, hashes))
        sure: list[Settled] = []
        asked: set[str] = set()
        # Those whose branch is closed first: what the endpoint says of them matters for the others too.
        for kind, settled in sorted(kinds.items(), key=lambda one: not one[0].endswith(CLOSED)):
            asked |= await self._compare(kind, settled)
            if not self._is_broken(kind):
                sure += [one for one in settled if one[0].id not in asked]
        for told_for_sure in _batches(sure, STORED):
            await self._store(history, told_for_sure)
        for batch in _batches(rows, STORED):
            await self._complete_hashes(history, batch)
        self._done += len(sure) + len(asked)
        requests = self._workspace.client.requests
        self._workspace.listener.progress(self._report.step, self._done, self._total, requests)
        return asked | {row.id for row, _ in sure}

    async def _compare(self, kind: str, settled: Sequence[Settled]) -> set[str]:
        """Asks the endpoint for some, and whether it says the same; returns the ids of those asked."""
        trust = self._trust[kind]
        async with trust.asking:
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
        stored = await branches.commits(self._workspace.warehouse, history.repository.id, wanted)
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
        if whole:
            async with self._workspace.warehouse.transaction() as transaction:
                await pulls.set_hashes(transaction, whole)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _can_be_told(heads: Heads, repository: Repository) -> bool:
    if heads.from_fork is not False or not heads.source:
        return False
    return bool(heads.merge) if heads.state == "MERGED" else heads.target_branch == repository.default_branch


def _missing(heads: Heads, ancestry: Ancestry) -> list[str]:
    ends = [heads.source, heads.merge] if heads.state == "MERGED" else [heads.source]
    return [sha for sha in ends if sha and ancestry.find(sha) is None]


def tell(heads: Heads, ancestry: Ancestry, *, frozen: bool = False) -> tuple[str, set[str]] | None:
    """The kind of pull request, and the hashes of its commits; None where the history does not prove them.

    `frozen` says that the target of a merged pull request is known to be the one that it was merged into.
    """
    source = ancestry.find(heads.source)
    if source is None:
        return None
    if heads.state != "MERGED":
        return _tell_unmerged(heads, ancestry, source)
    merge = ancestry.find(heads.merge)
    told = None if merge is None else _tell_merged(heads, ancestry, source, merge, frozen=frozen)
    if told is None:
        return None
    kind, hashes = told
    return kind + CLOSED if heads.closes_source else kind, hashes


def _tell_merged(
    heads: Heads, ancestry: Ancestry, source: str, merge: str, *, frozen: bool
) -> tuple[str, set[str]] | None:
    target = ancestry.find(heads.target)
    if merge == source:
        hashes = ancestry.difference(source, target) if target else None
        # The target had at least what was told once, and not the source: one commit leaves no place in between.
        return ("fast-forwarded", hashes) if hashes and (frozen or len(hashes) == 1) else None
    parents = ancestry.parents(merge)
    if not parents:
        return None
    kind = "squashed" if len(parents) == 1 else "merged"
    if kind == "merged" and parents[1:] != (source,):
        # Copies of the source's commits were merged. That it was this merge shows in where the target was.
        if target != parents[0]:
            return None
        kind = "rebased"
    hashes = ancestry.difference(source, parents[0])
    # Without any, the target had the source before that commit: it is not the one that brought it there.
    return None if not hashes or merge in hashes else (kind, hashes)


def _tell_unmerged(heads: Heads, ancestry: Ancestry, source: str) -> tuple[str, set[str]] | None:
    target = ancestry.find(heads.target)
    if target not in ancestry.branch:
        return None
    least = ancestry.beside_branch(source)
    if least is None or least != ancestry.difference(source, target):
        return None
    return heads.state.lower(), least
