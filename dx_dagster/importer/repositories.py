"""Repositories: the whole list, in which absence is news once it is complete."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

from dx_dagster.bitbucket import Forbidden, Gone, Page, PagingInCircles, endpoints, keyset, numbered
from dx_dagster.frames import repositories as frames
from dx_dagster.frames.identifiers import of_bitbucket
from dx_dagster.frames.reading import Json, record, text
from dx_dagster.importer.workspace import Report, Workspace, lacks_scope, note
from dx_dagster.warehouse import addresses, merge

KIND = "repositories"


async def import_repositories(workspace: Workspace) -> Report:
    """Stores the workspace and its repositories; one that no complete listing holds any longer gets `deleted_at`."""
    report = Report(KIND)
    seen: set[str] = set()
    try:
        workspace = await _store_workspace(workspace, await _ask_workspace(workspace))
    except (Gone, Forbidden) as error:
        # 410 was met on the real service in 2026, though the endpoint is not deprecated; a token of a single repository
        # may be refused. Repositories name their workspace too.
        if lacks_scope(error):
            raise
        note(workspace, report, f"the workspace is taken from its repositories ({error})")
    async for page in _pages(workspace):
        if not workspace.id:
            workspace = await _store_workspace(workspace, record(page.values[0], "workspace") if page.values else {})
        frame = frames.repositories(workspace.id, page.values, page.asked_at)
        seen.update(frame["id"])
        async with workspace.warehouse.transaction() as transaction:
            await addresses.follow_renames(transaction, frame)
            await transaction.merge(merge.REPOSITORIES, frame)
        workspace.listener.progress(KIND, len(seen), max(len(seen), page.size or 0), workspace.client.requests)
    async with workspace.warehouse.transaction() as transaction:
        await transaction.execute(_MARK_DELETED, {"workspace": workspace.id, "seen": list(seen)})
    return report


_MARK_DELETED = """
    UPDATE bitbucket_repositories r
    SET deleted_at = CASE WHEN listed.now THEN NULL ELSE now() END
    FROM (SELECT id, id = ANY(%(seen)s::uuid[]) AS now FROM bitbucket_repositories) listed
    WHERE r.workspace_id = %(workspace)s AND listed.id = r.id AND listed.now = (r.deleted_at IS NOT NULL)"""


async def _ask_workspace(workspace: Workspace) -> Json:
    body = await workspace.client.get(endpoints.workspace(workspace.slug).path)
    return record(body)


async def _store_workspace(workspace: Workspace, value: Json) -> Workspace:
    """Stores the workspace under the name that it is asked by."""
    source = text(value.get("uuid")) or workspace.slug
    frame = frames.workspace({"slug": workspace.slug, "name": value.get("name"), "uuid": source}, datetime.now(UTC))
    async with workspace.warehouse.transaction() as transaction:
        await transaction.merge(merge.WORKSPACES, frame)
    return replace(workspace, id=of_bitbucket(source))


async def _pages(workspace: Workspace) -> AsyncIterator[Page]:
    """The list as each credential sees it: tokens of single repositories or projects see different ones.

    By uuid, which never changes; by page numbers where the sort is not heeded.
    """
    endpoint = endpoints.repositories(workspace.slug)
    for credential in workspace.client.pool.usable:
        pinned = workspace.client.using(credential)
        try:
            async for page in keyset(pinned, endpoint, key="uuid", descending=False):
                yield page
        except PagingInCircles:
            async for page in numbered(pinned, endpoint):
                yield page
