"""Commits of default branches and of pull requests.

Where the history of a repository proves what the endpoint would answer about a pull request, its commits are stored
without a request. `trust` decides which of them are compared with the endpoint all the same.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import anyio

from dx_dagster.importer.commits import endpoint, whole_hashes
from dx_dagster.importer.commits.default_branch import KIND, import_branches
from dx_dagster.importer.commits.endpoint import FetchedCommits
from dx_dagster.importer.commits.history import History, Including, Known, split
from dx_dagster.importer.commits.loading import load
from dx_dagster.importer.commits.proofs import CLOSED
from dx_dagster.importer.commits.trust import CERTAIN, Trust
from dx_dagster.importer.commits.whole_hashes import Resolved
from dx_dagster.importer.each import OF_ONE_REQUEST, batches, for_each, lacks_scope
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows, scope_of
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.member_emails import verify_emails
from dx_dagster.importer.report import Progress, Report, note
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse.imported import commits, hashes, pulls, sessions, stale
from dx_dagster.warehouse.imported.commits import Targets
from dx_dagster.warehouse.imported.marks import CommitsMark, with_marks
from dx_dagster.warehouse.imported.stale import Part

STORED = 500
"""Pull requests of one transaction."""

PART = 2000
"""Pull requests in memory at a time."""

_FORK_DELETED, _GONE = "fork deleted", "commit gone"
_HISTORIES = 8
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

Proven = tuple[PullRow, set[str]]
"""A pull request and the hashes of its commits, as the history proves them."""


async def import_commits(workspace: Workspace) -> Report:
    """Stores new commits of default branches and of pull requests whose source or target moved."""
    report = Report(KIND)
    require_id(workspace)
    if workspace.continued_from is not None:
        # Where the merges of a repository look unresolved, its branch is walked again.
        await _resolve_by_what_is_stored(workspace, set())
    await import_branches(workspace, report)
    if workspace.full:
        async with workspace.warehouse.transaction() as transaction:
            await stale.forget_commits(transaction, workspace.id)
    parts = await stale.parts_without_commits(workspace.warehouse, await scope_of(workspace), PART)
    moved = {part.repository_id for part in parts}
    await _resolve_by_what_is_stored(workspace, moved)
    progress = Progress(workspace, report, sum(part.pulls for part in parts))
    importing = _Importing(workspace, report, progress)
    for group in _groups(parts):
        await importing.of(group)
    await _resolve_by_what_is_stored(workspace, moved)
    await importing.resolve_hashes()
    await verify_emails(workspace)  # commits bring addresses
    return report


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts that are in memory together. Of a repository with many parts, the oldest comes first: see `trust`."""
    of_repositories: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        of_repositories[part.repository_id].append(part)
    group: list[Part] = []
    for of_it in of_repositories.values():
        for part in [*of_it[-1:], *of_it[:-1]]:
            if group and (len(of_it) > 1 or sum(one.pulls for one in group) + part.pulls > PART):
                yield group
                group = []
            group.append(part)
    if group:
        yield group


class _Importing:
    """Imports the commits of pull requests, a group of parts at a time."""

    def __init__(self, workspace: Workspace, report: Report, progress: Progress) -> None:
        self._workspace = workspace
        self._report = report
        self._progress = progress
        self._proving = _Proving(workspace, report, progress)
        self._checks = Trust()
        self._including = Including()
        self._known: dict[str, Known] = {}
        self._commit = GroupCommit[FetchedCommits](lambda batch: endpoint.store(workspace, batch))

    async def of(self, parts: Sequence[Part]) -> None:
        """Imports the commits of these pull requests."""
        rows = await pull_rows(self._workspace, stale.pulls_without_commits, parts=parts)
        histories, forkless, others = await split(self._workspace, rows, self._known, self._including)
        unproven: list[PullRow] = []

        async def from_histories() -> None:
            unproven.extend(await self._proving.store(histories))

        async def from_endpoint() -> None:
            await self._fetch_each(others)
            await self._settle_forkless(forkless)

        await for_each([from_histories, from_endpoint], lambda work: work(), 2)
        await self._fetch_each(unproven)
        # The next part may be of the same repository.
        self._known = {histories[-1].repository.id: histories[-1].known} if len(histories) == 1 else {}

    async def _fetch_each(self, rows: Sequence[PullRow]) -> None:
        async def fetch(row: PullRow) -> None:
            await self._commit(await endpoint.fetch(self._workspace, row))

        await for_each_pull(self._workspace, self._report, rows, fetch, self._progress)

    async def _settle_forkless(self, rows: Sequence[PullRow]) -> None:
        """Settles pull requests whose fork is deleted: the endpoint answers 404, which some of them confirm."""

        async def is_missing(row: PullRow) -> bool:
            fetched = await endpoint.fetch(self._workspace, row)
            await self._commit(fetched)
            return not fetched.values

        left = await self._spot_check(_FORK_DELETED, rows, is_missing, self._progress)
        if not self._checks.is_trusted(_FORK_DELETED):
            await self._fetch_each(left)
            return
        now = self._workspace.now()
        for batch in batches(left, STORED):
            await endpoint.store(self._workspace, [FetchedCommits(row, None, now) for row in batch])
        self._progress.add(len(left))

    async def resolve_hashes(self) -> None:
        """Requests the few hashes that no list of commits brought: those of one repository together."""
        workspace = self._workspace
        rows = await pull_rows(workspace, stale.pulls_with_short_hashes)
        marked = {one.id: one for one in await with_marks(workspace.warehouse, workspace.id, CommitsMark)}
        of_repositories: defaultdict[str, list[PullRow]] = defaultdict(list)
        for row in rows:
            of_repositories[row.repository.id].append(row)
        singly: list[PullRow] = []

        async def together(repository_id: str) -> None:
            of_it = of_repositories[repository_id]
            shorts = {short for row in of_it for short in whole_hashes.short_hashes(row)}
            if len(shorts) <= 1:
                singly.extend(of_it)
                return
            repository = marked[repository_id]
            found = await whole_hashes.resolve_together(workspace, repository, repository.mark.head, shorts)
            settled = [row for row in of_it if found.settles(row)]
            singly.extend(row for row in of_it if not found.settles(row))
            singly.extend(await self._store_hashes(settled, found))

        await for_each(list(of_repositories), together, workspace.at_once)
        await for_each_pull(workspace, self._report, singly, self._resolve)

    async def _resolve(self, row: PullRow) -> None:
        await whole_hashes.resolve(self._workspace, row)

    async def _store_hashes(self, rows: Sequence[PullRow], found: Resolved) -> Sequence[PullRow]:
        """Stores what is found; returns the pull requests that must be requested after all."""

        async def is_gone(row: PullRow) -> bool:
            return (await whole_hashes.resolve(self._workspace, row)).lacks(row)

        settled = [row for row in rows if not found.lacks(row)]
        left = await self._spot_check(_GONE, [row for row in rows if found.lacks(row)], is_gone)
        if self._checks.is_trusted(_GONE):
            settled, left = [*settled, *left], []
        for batch in batches(settled, STORED):
            await whole_hashes.store(self._workspace, batch, found.whole)
        return left

    async def _spot_check(
        self,
        kind: str,
        rows: Sequence[PullRow],
        agrees: Callable[[PullRow], Awaitable[bool]],
        progress: Progress | None = None,
    ) -> list[PullRow]:
        """Requests some of these pull requests, as `trust` chooses; returns the others."""
        chosen = self._checks.choose(kind, rows)

        async def check(row: PullRow) -> None:
            if await agrees(row):
                self._checks.agreed(kind)
            else:
                self._checks.differed(kind, empty=False)

        await for_each_pull(self._workspace, self._report, chosen, check, progress)
        asked = {row.id for row in chosen}
        return [row for row in rows if row.id not in asked]


class _Proving:
    """Stores the commits that histories prove, as long as the endpoint agrees."""

    def __init__(self, workspace: Workspace, report: Report, progress: Progress) -> None:
        self._workspace = workspace
        self._report = report
        self._progress = progress
        session = workspace.session if workspace.continued_from else None
        self._trust = Trust(session.agreed if session else ())
        self._targets: Targets | None = None
        self._asking: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def store(self, histories: Sequence[History]) -> list[PullRow]:
        """Stores what the histories prove; returns the other pull requests, last changed first.

        Raises:
            BitbucketError: a credential lacks a scope, or none is left.
        """
        if not histories:
            return []
        stored: set[str] = set()
        self._targets = self._targets or await commits.targets(self._workspace.warehouse, self._workspace.id)
        targets = self._targets

        async def work(history: History) -> None:
            stored.update(await self._store_of(history, targets))
            history.beside.clear()

        # Few at a time: each holds a repository's whole history.
        with self._workspace.unstored() as limit:
            await for_each(histories, work, _HISTORIES, limit=limit)
        left = [row for history in histories for row in history.rows if row.id not in stored]
        return sorted(left, key=lambda row: row.updated_at or _LONG_AGO, reverse=True)

    async def _store_of(self, history: History, targets: Targets) -> set[str]:
        """Stores the proven pull requests of one repository; returns their ids."""
        held = await load(self._workspace, self._report, history)
        # Before anything else is stored: after a kill, what is no longer stale is in no history.
        await _complete_hashes(self._workspace, history, held)
        kinds = await _prove(history, held, targets)
        asked: set[str] = set()

        async def compare(kind: str) -> None:
            asked.update(await self._compare(kind, kinds[kind]))

        # Closed branches first: what the endpoint answers about them decides about the others too.
        for closed in (True, False):
            at_once = min(len(kinds), self._workspace.at_once)
            await for_each([kind for kind in kinds if kind.endswith(CLOSED) is closed], compare, at_once)
        trusted = [
            (row, hashes)
            for kind, proven in kinds.items()
            if not self._trust.is_broken(kind)
            for row, hashes in proven
            if row.id not in asked
        ]
        for batch in batches(trusted, STORED):
            await _store_proven(self._workspace, history, batch, ends=batch[-1] is trusted[-1])
        self._progress.add(len(trusted) + len(asked))
        return asked | {row.id for row, _ in trusted}

    async def _compare(self, kind: str, proven: Sequence[Proven]) -> set[str]:
        """Compares some pull requests with the endpoint, and stores its answers; returns the ids of those asked."""
        if self._trust.is_certain(kind):
            return await self._ask(kind, proven)
        async with self._asking[kind]:  # other repositories wait for the result of the first answers
            return await self._ask(kind, proven)

    async def _ask(self, kind: str, proven: Sequence[Proven]) -> set[str]:
        asked: set[str] = set()
        for batch in batches(self._trust.choose(kind, proven), self._workspace.at_once):
            asked |= await self._ask_batch(kind, batch)
        return asked

    async def _ask_batch(self, kind: str, chosen: Sequence[Proven]) -> set[str]:
        hashes_of = {row.id: proven_hashes for row, proven_hashes in chosen}
        answers: list[FetchedCommits] = []

        async def ask(row: PullRow) -> None:
            try:
                answer = await endpoint.fetch(self._workspace, row)
                if answer.values is not None:  # a 404 contradicts no proof
                    answers.append(answer)
            except OF_ONE_REQUEST as error:
                if lacks_scope(error):
                    raise

        await for_each([row for row, _ in chosen], ask, CERTAIN)
        if answers:
            await endpoint.store(self._workspace, answers)
        for answer in answers:
            if {value.get("hash") for value in answer.values or ()} == hashes_of[answer.row.id]:
                self._trust.agreed(kind)
            else:
                self._trust.differed(kind, empty=not answer.values)
                self._report_difference(kind, answer.row)
        await self._remember(kind, len(answers))
        return {answer.row.id for answer in answers}

    async def _remember(self, kind: str, answers: int) -> None:
        """Records the first answers that agreed, for a sync that continues this one.

        Where any differed, it begins anew.
        """
        if self._workspace.session is None or not answers or self._trust.agrees_beyond_doubt(kind, answers):
            return
        async with self._workspace.warehouse.transaction() as transaction:
            if self._trust.agrees:
                await sessions.note_agreed(transaction, self._workspace.session, [kind] * answers)
            else:
                await sessions.forget_agreed(transaction, self._workspace.session)

    def _report_difference(self, kind: str, row: PullRow) -> None:
        message = f"commits of {kind} pull requests are requested one by one: the history of {row.repository.slug}"
        note(self._workspace, self._report, f"{message} and the endpoint differ about #{row.number}")


async def _prove(history: History, rows: Sequence[PullRow], targets: Targets) -> dict[str, list[Proven]]:
    """The pull requests whose commits the history proves, by kind."""
    kinds: dict[str, list[Proven]] = defaultdict(list)
    for batch in batches(rows, STORED):
        await anyio.lowlevel.checkpoint()  # ten thousand pull requests take seconds, in which other tasks must run
        for row in batch:
            if (proof := history.prove(row, targets)) is not None:
                kind, hashes = proof
                kinds[kind].append((row, hashes))
    return kinds


async def _store_proven(workspace: Workspace, history: History, proven: Sequence[Proven], *, ends: bool) -> None:
    """Stores what the history proves; `ends`: these are the last pull requests that it proves."""
    wanted = {sha for _, hashes in proven for sha in hashes if history.commit(sha) is None}
    stored = await commits.commits(workspace.warehouse, history.repository.id, wanted)
    # A commit that is gone since the history was loaded was rewritten away: the next sync fetches the list.
    lists = [
        (row, [history.commit(sha) or stored[sha] for sha in hashes])
        for row, hashes in proven
        if all(sha in stored or history.commit(sha) is not None for sha in hashes)
    ]
    async with workspace.warehouse.transaction() as transaction:
        await endpoint.store_lists(transaction, lists, history.asked_at)
        if ends and history.beside:
            await workspace.drop_commits(transaction, history.repository.id)


async def _complete_hashes(workspace: Workspace, history: History, rows: Iterable[PullRow]) -> None:
    """Replaces the short hashes that pull requests carry by whole ones."""
    whole = [
        (row.id, sha)
        for row in rows
        for short in (history.heads[row.id].source, history.heads[row.id].merge)
        if (sha := history.ancestry.find(short)) and sha != short
    ]
    for batch in batches(whole, STORED):
        async with workspace.warehouse.transaction() as transaction:
            await hashes.complete(transaction, batch)


async def _resolve_by_what_is_stored(workspace: Workspace, moved: set[str]) -> None:
    """Replaces short hashes from stored commits, also where a killed import stored commits and stopped before this."""
    short = await stale.repositories_with_short_hashes(workspace.warehouse, await scope_of(workspace))
    of_runs = await hashes.repositories_with_short_runs(workspace.warehouse, workspace.id)
    sizes = await pulls.counts(workspace.warehouse, moved | short | of_runs)
    together: list[str] = []
    for repository_id in moved | short | of_runs:
        if together and sum(sizes.get(one, 0) for one in (*together, repository_id)) > PART:
            await _resolve_in(workspace, together)
            together = []
        together.append(repository_id)
    await _resolve_in(workspace, together)


async def _resolve_in(workspace: Workspace, repository_ids: Sequence[str]) -> None:
    async with workspace.warehouse.transaction() as transaction:
        await hashes.resolve(transaction, repository_ids)
