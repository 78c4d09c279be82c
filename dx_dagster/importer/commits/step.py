"""Commits of default branches and of pull requests."""

from dx_dagster.importer.commits.default_branch import KIND, import_branches
from dx_dagster.importer.commits.endpoint import Fetched, fetch, resolve, store
from dx_dagster.importer.commits.history import CommitGraph
from dx_dagster.importer.each_pull import GroupCommit, PullRow, for_each_pull, pull_rows
from dx_dagster.importer.workspace import Done, Report, Workspace, for_each, require_id
from dx_dagster.warehouse.imported import hashes, stale


async def import_commits(workspace: Workspace) -> Report:
    """Stores new commits of default branches and of pull requests whose source or target moved."""
    report = Report(KIND)
    require_id(workspace)
    await import_branches(workspace, report)
    if workspace.full:
        async with workspace.warehouse.transaction() as transaction:
            await stale.forget_commits(transaction, workspace.id)
    commit = GroupCommit[Fetched](lambda batch: store(workspace, batch))

    async def one(row: PullRow) -> None:
        await commit(await fetch(workspace, row))

    moved = await pull_rows(workspace, stale.pulls_without_commits)
    await _resolve_by_what_is_stored(workspace, moved)
    done = Done(workspace, report, len(moved))
    graph = CommitGraph(workspace, report, done)
    histories, others = await graph.split(moved)
    left: list[PullRow] = []

    async def tell() -> None:
        left.extend(await graph.take(histories))

    async def ask() -> None:
        await for_each_pull(workspace, report, others, one, done)

    await for_each([tell, ask], lambda work: work(), 2)
    await for_each_pull(workspace, report, left, one, done)
    await _resolve_hashes(workspace, report, moved)
    return report


async def _resolve_by_what_is_stored(workspace: Workspace, moved: list[PullRow]) -> None:
    """Replaces short hashes, also those that a killed import has fetched commits for and not yet looked into them."""
    short = await pull_rows(workspace, stale.pulls_with_short_hashes)
    of_pipelines = await hashes.repositories_with_short_pipelines(workspace.warehouse, workspace.id)
    async with workspace.warehouse.transaction() as transaction:
        await hashes.resolve(transaction, {row.repository.id for row in (*moved, *short)} | of_pipelines)


async def _resolve_hashes(workspace: Workspace, report: Report, moved: list[PullRow]) -> None:
    """First by what is stored; the few that no list of commits brought are asked for one by one."""
    await _resolve_by_what_is_stored(workspace, moved)
    short = await pull_rows(workspace, stale.pulls_with_short_hashes)
    await for_each_pull(workspace, report, short, lambda row: resolve(workspace, row))
