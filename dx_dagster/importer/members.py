"""Members of a workspace: active users, as long as a complete listing holds them."""

from dx_dagster.bitbucket import Forbidden, Gone, NotFound, Page, PagingInCircles, cursor, endpoints, numbered
from dx_dagster.frames import users
from dx_dagster.importer.emails import import_emails
from dx_dagster.importer.workspace import Report, Workspace, lacks_scope, note, require_id, skip
from dx_dagster.settings import Settings
from dx_dagster.warehouse import merge

KIND = "members"
# The list has page numbers only, so it loses rows when somebody leaves meanwhile. Its `size` tells.
WALKS = 3


async def import_people(settings: Settings, workspace: Workspace) -> Report:
    """Members, and the e-mail addresses of all who are known."""
    report = await import_members(workspace)
    await import_emails(settings, workspace, report)
    return report


async def import_members(workspace: Workspace) -> Report:
    """Stores the members; who is no longer listed becomes an inactive user."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    try:
        pages, complete = await _list(workspace)
    except (Forbidden, NotFound, Gone, PagingInCircles) as error:
        if lacks_scope(error):
            raise
        skip(workspace, report, workspace.slug, error)
        return report
    accounts = [value.get("user") for page in pages for value in page.values]
    found = users.users(workspace_id, accounts, pages[0].asked_at, members=True)
    async with workspace.warehouse.transaction() as transaction:
        await transaction.merge(merge.MEMBERS, found)
        if complete:
            await transaction.execute(
                "UPDATE bitbucket_users SET active = false "
                "WHERE workspace_id = %s AND active AND NOT id = ANY(%s::uuid[])",
                [workspace_id, found["id"].to_list()],
            )
    if not complete:
        note(workspace, report, "the list of members kept changing; nobody was made inactive")
    workspace.listener.progress(KIND, len(found), len(found), workspace.client.requests)
    return report


async def _list(workspace: Workspace) -> tuple[list[Page], bool]:
    """All pages, and whether they hold as many members as they say there are."""
    pages: list[Page] = []
    endpoint = endpoints.members(workspace.slug)
    for _ in range(WALKS):
        try:
            pages = [page async for page in numbered(workspace.client, endpoint)]
        except PagingInCircles:  # page numbers are not documented here
            pages = [page async for page in cursor(workspace.client, endpoint)]
        if len(pages) == 1 or _distinct(pages) >= (pages[-1].size or 0):
            return pages, True
    return pages, False


def _distinct(pages: list[Page]) -> int:
    sources = {users.source_id(value.get("user")) for page in pages for value in page.values} - {None}
    return len(sources)
