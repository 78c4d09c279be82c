"""Commits of pull requests, and the hashes that nothing else tells in full."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dx_dagster.bitbucket import NotFound, cursor, endpoints
from dx_dagster.frames import commits as frames
from dx_dagster.frames import users
from dx_dagster.frames.reading import Json, text
from dx_dagster.importer.branches import KIND, import_branches
from dx_dagster.importer.pulls import GroupCommit, PullRow, for_each_pull, pull_rows
from dx_dagster.importer.workspace import Report, Workspace, require_id
from dx_dagster.warehouse import merge, pulls

# The commits of a pull request are those that its source reaches and its target does not. Besides both of them it
# matters how many the target has got by other ways (a pull request below this one was merged).
VERSION = """concat_ws(' ', left(p.source_commit_sha, 12), p.target_branch, CASE WHEN p.state = 'OPEN' THEN (
    SELECT count(*) FROM bitbucket_pull_commits c JOIN bitbucket_repository_default_branch_commits b USING (sha)
    WHERE c.pull_id = p.id AND b.repository_id = p.repository_id)::text END)"""
STALE = f"m.commits_synced_for IS DISTINCT FROM {VERSION}"
HASHES = "concat_ws(' ', p.merge_commit_sha, p.source_commit_sha)"
SHORT = (
    f"(length(p.merge_commit_sha) < 40 OR length(p.source_commit_sha) < 40) "
    f"AND m.hashes_resolved_for IS DISTINCT FROM {HASHES}"
)
_FORGET = """
    UPDATE pull_marks SET commits_synced_for = NULL, hashes_resolved_for = NULL
    WHERE repository_id IN (SELECT id FROM bitbucket_repositories WHERE workspace_id = %s)"""


class Fetched(NamedTuple):
    """All commits of one pull request; None where its fork is gone, and nobody can tell any more."""

    row: PullRow
    values: list[Json] | None
    asked_at: datetime


async def import_commits(workspace: Workspace) -> Report:
    """Stores new commits of default branches and of pull requests whose source or target moved."""
    report = Report(KIND)
    require_id(workspace)
    await import_branches(workspace, report)
    if workspace.full:
        async with workspace.warehouse.transaction() as transaction:
            await transaction.execute(_FORGET, [workspace.id])
    commit = GroupCommit[Fetched](lambda batch: store(workspace, batch))

    async def one(row: PullRow) -> None:
        await commit(await fetch(workspace, row))

    rows = await pull_rows(workspace, STALE, VERSION)
    await for_each_pull(workspace, report, rows, one)
    # A killed import may have fetched commits and not yet looked into them.
    short = await pull_rows(workspace, SHORT, HASHES)
    async with workspace.warehouse.transaction() as transaction:
        for repository_id in {row.repository.id for row in (*rows, *short)}:
            await pulls.resolve_hashes(transaction, repository_id)
    short = await pull_rows(workspace, SHORT, HASHES)
    await for_each_pull(workspace, report, short, lambda row: resolve(workspace, row))
    return report


async def fetch(workspace: Workspace, row: PullRow) -> Fetched:
    endpoint = endpoints.pull_request_commits(workspace.slug, row.repository.source_id, row.number)
    asked_at = datetime.now(UTC)
    try:
        pages = [page async for page in cursor(workspace.client, endpoint)]
    except NotFound:
        # Said of a pull request from a fork that was deleted: what is stored stays as it is.
        return Fetched(row, None, asked_at)
    return Fetched(row, [value for page in pages for value in page.values], asked_at)


async def store(workspace: Workspace, batch: Sequence[Fetched]) -> None:
    """Merges commits of pull requests. A stored commit that a list no longer holds was pushed away; an empty list says
    only that the branch is gone.
    """
    asked_at = min(fetched.asked_at for fetched in batch)
    found = [(fetched.row.id, value) for fetched in batch for value in fetched.values or ()]
    frame = frames.pull_commits(workspace.id, found, asked_at)
    async with workspace.warehouse.transaction() as transaction:
        accounts = frames.accounts(value for _, value in found)
        await transaction.merge(merge.USERS, users.users(workspace.id, accounts, asked_at))
        await transaction.merge(merge.PULL_COMMITS, frame)
        await pulls.mark_other_commits_deleted(
            transaction, [fetched.row.id for fetched in batch if fetched.values], frame["id"].to_list()
        )
        marks = [(fetched.row, fetched.row.version) for fetched in batch]
        await pulls.set_marks(transaction, "commits_synced_for", marks)


async def resolve(workspace: Workspace, row: PullRow) -> None:
    """Asks for short hashes one by one: merges into other branches, heads of pull requests without commits."""
    whole: list[str] = []
    for short in row.version.split():
        if len(short) < 40:  # noqa: PLR2004 - characters of a whole hash
            endpoint = endpoints.commit(workspace.slug, row.repository.source_id, short)
            try:
                value = await workspace.client.get(endpoint.path, endpoint.params)
            except NotFound:
                continue
            whole += [sha] if (sha := text(value.get("hash"))) else []
    async with workspace.warehouse.transaction() as transaction:
        resolved = await pulls.set_hashes(transaction, row.id, whole)
        await pulls.set_marks(transaction, "hashes_resolved_for", [(row, resolved)])
