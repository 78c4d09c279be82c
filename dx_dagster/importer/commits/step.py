"""Commits of default branches and of pull requests.

Where the history of a repository proves what the endpoint would answer about a pull request, its commits are stored
without a request. `trust` decides which of them are compared with the endpoint all the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import anyio

from dx_dagster.bitbucket import BadRequest, Forbidden, NotFound, PagingInCircles, RefusedOrigin, Unavailable
from dx_dagster.importer.commits import endpoint
from dx_dagster.importer.commits.default_branch import KIND, import_branches
from dx_dagster.importer.commits.endpoint import FetchedCommits
from dx_dagster.importer.commits.history import History, load, split
from dx_dagster.importer.commits.proofs import CLOSED, prove
from dx_dagster.importer.commits.trust import CERTAIN, Trust
from dx_dagster.importer.each import batches, for_each, lacks_scope
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.group_commit import GroupCommit
from dx_dagster.importer.member_emails import verify_emails
from dx_dagster.importer.report import Progress, Report, note
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.warehouse.imported import commits, hashes, sessions, stale
from dx_dagster.warehouse.imported.commits import Targets

STORED = 500
"""Pull requests of one transaction."""

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
        await _resolve_by_what_is_stored(workspace, [])
    await import_branches(workspace, report)
    if workspace.full:
        async with workspace.warehouse.transaction() as transaction:
            await stale.forget_commits(transaction, workspace.id)
    commit = GroupCommit[FetchedCommits](lambda batch: endpoint.store(workspace, batch))

    async def fetch(row: PullRow) -> None:
        await commit(await endpoint.fetch(workspace, row))

    moved = await pull_rows(workspace, stale.pulls_without_commits)
    await _resolve_by_what_is_stored(workspace, moved)
    progress = Progress(workspace, report, len(moved))
    histories, others = await split(workspace, moved)
    unproven: list[PullRow] = []

    async def from_histories() -> None:
        unproven.extend(await _Proving(workspace, report, progress).store(histories))

    async def from_endpoint() -> None:
        await for_each_pull(workspace, report, others, fetch, progress)

    await for_each([from_histories, from_endpoint], lambda work: work(), 2)
    await for_each_pull(workspace, report, unproven, fetch, progress)
    await _resolve_hashes(workspace, report, moved)
    await verify_emails(workspace)  # commits bring addresses
    return report


class _Proving:
    """Stores the commits that histories prove, as long as the endpoint agrees."""

    def __init__(self, workspace: Workspace, report: Report, progress: Progress) -> None:
        self._workspace = workspace
        self._report = report
        self._progress = progress
        session = workspace.session if workspace.continued_from else None
        self._trust = Trust(session.agreed if session else ())
        self._asking: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def store(self, histories: Sequence[History]) -> list[PullRow]:
        """Stores what the histories prove; returns the other pull requests, last changed first.

        Raises:
            BitbucketError: a credential lacks a scope, or none is left.
        """
        if not histories:
            return []
        stored: set[str] = set()
        targets = await commits.targets(self._workspace.warehouse, self._workspace.id)

        async def work(history: History) -> None:
            stored.update(await self._store_of(history, targets))
            history.forget()

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
                answers.append(await endpoint.fetch(self._workspace, row))
            except (Forbidden, NotFound, BadRequest, PagingInCircles, RefusedOrigin, Unavailable) as error:
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
            if (proof := prove(history.heads[row.id], history.ancestry, targets)) is not None:
                kind, hashes = proof
                kinds[kind].append((row, hashes))
    return kinds


async def _store_proven(workspace: Workspace, history: History, proven: Sequence[Proven], *, ends: bool) -> None:
    """Stores what the history proves; `ends`: these are the last pull requests that it proves."""
    wanted = {sha for _, hashes in proven for sha in hashes if sha not in history.beside}
    stored = await commits.commits(workspace.warehouse, history.repository.id, wanted)
    # A commit that is gone since the history was loaded was rewritten away: the next sync fetches the list.
    lists = [
        (row, [history.beside.get(sha) or stored[sha] for sha in hashes])
        for row, hashes in proven
        if all(sha in history.beside or sha in stored for sha in hashes)
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


async def _resolve_by_what_is_stored(workspace: Workspace, moved: list[PullRow]) -> None:
    """Replaces short hashes from stored commits, also where a killed import stored commits and stopped before this."""
    short = await pull_rows(workspace, stale.pulls_with_short_hashes)
    of_runs = await hashes.repositories_with_short_runs(workspace.warehouse, workspace.id)
    async with workspace.warehouse.transaction() as transaction:
        await hashes.resolve(transaction, {row.repository.id for row in (*moved, *short)} | of_runs)


async def _resolve_hashes(workspace: Workspace, report: Report, moved: list[PullRow]) -> None:
    """Replaces short hashes from stored commits, and requests the few that no list of commits brought."""
    await _resolve_by_what_is_stored(workspace, moved)
    short = await pull_rows(workspace, stale.pulls_with_short_hashes)
    await for_each_pull(workspace, report, short, lambda row: endpoint.resolve(workspace, row))
