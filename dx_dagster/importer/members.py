"""Imports the members of a workspace: users are active while a complete listing contains them."""

from collections.abc import Mapping

from dx_dagster.bitbucket import (
    Page,
    PagingInCircles,
    Unavailable,
    cursor,
    endpoints,
    numbered,
    unreadable,
)
from dx_dagster.frames import users
from dx_dagster.frames.reading import Json
from dx_dagster.importer import absence
from dx_dagster.importer.each import OF_ONE_REQUEST, lacks_scope
from dx_dagster.importer.emails import import_emails
from dx_dagster.importer.member_emails import verify_emails
from dx_dagster.importer.mending import mend
from dx_dagster.importer.report import Report, note, skip
from dx_dagster.importer.workspace import Workspace, require_id
from dx_dagster.settings import Settings
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.imported import member_emails, members

KIND = "members"
# The list has only page numbers, so it loses rows when a member leaves during the walk; its `size` shows that.
WALKS = 3


async def import_people(settings: Settings, workspace: Workspace) -> Report:
    """Imports the members, and the e-mail addresses of all stored users."""
    if workspace.has_ended(KIND):
        return Report(KIND)
    report = await import_members(workspace)
    await import_emails(settings, workspace, report)
    if workspace.full:
        async with workspace.warehouse.transaction() as transaction:
            await member_emails.ask_again(transaction, workspace.id)
    await verify_emails(workspace)
    async with workspace.warehouse.transaction() as transaction:
        await workspace.end_step(transaction, KIND)
    return report


async def import_members(workspace: Workspace) -> Report:
    """Stores the members; a user who is no longer listed becomes inactive."""
    report = Report(KIND)
    workspace_id = require_id(workspace)
    try:
        pages, complete = await _list(workspace)
    except OF_ONE_REQUEST as error:
        if lacks_scope(error) or isinstance(error, Unavailable):
            raise
        skip(workspace, report, workspace.slug, error)
        return report
    accounts = [value.get("user") for page in pages for value in page.values]
    frame = users.users(workspace_id, accounts, pages[0].asked_at, members=True)
    if frame.is_empty():
        note(workspace, report, "the list of members is empty, and is ignored")
        return report
    known = await members.active(workspace.warehouse, workspace_id)
    async with workspace.warehouse.transaction() as transaction:
        await transaction.merge(merge.MEMBERS, frame)
        if not set(known).issuperset(frame["id"].to_list()):  # before a crash could hide that somebody joined
            await member_emails.ask_again(transaction, workspace_id)
    if unread := sum(page.unreadable for page in pages):
        sent = unreadable(endpoints.members(workspace.slug).path, unread)
        note(workspace, report, f"no member was made inactive: {sent}")
    elif complete:
        left = await _left(workspace, report, frame["source_id"].to_list())
        async with workspace.warehouse.transaction() as transaction:
            await members.deactivate(transaction, left)
    else:
        note(workspace, report, "the list of members kept changing, so no member was made inactive")
    await mend(workspace)
    workspace.listener.progress(KIND, len(frame), len(frame), workspace.client.requests, "members")
    return report


async def _left(workspace: Workspace, report: Report, listed: list[str]) -> list[str]:
    """Active users missing from a complete list; confirmed by requests if suspiciously many are missing."""
    stored = await members.active(workspace.warehouse, workspace.id)
    known = set(listed)
    missing = {user_id: uuid for user_id, uuid in stored.items() if uuid not in known}
    if not absence.is_suspicious(stored=len(stored), missing=len(missing), listed=len(listed)):
        return list(missing)
    left = await _confirmed(workspace, missing, listed[0])
    note(
        workspace,
        report,
        f"the list lacks {len(missing)} of {len(stored)} members: {len(left)} are confirmed to have left, and the "
        "others are kept",
    )
    return left


async def _confirmed(workspace: Workspace, missing: Mapping[str, str], listed: str) -> list[str]:
    async def is_gone(user_id: str) -> bool:
        return await _asked(workspace, missing[user_id]) is None

    # A control: if a listed member is not found either, the answers mean nothing.
    try:
        control = await _asked(workspace, listed)
    except OF_ONE_REQUEST:
        return []
    return [] if control is None else await absence.confirmed(workspace, list(missing), is_gone)


async def _asked(workspace: Workspace, account: str) -> Json | None:
    return await absence.asked(workspace, endpoints.member(workspace.slug, account), "user")


async def _list(workspace: Workspace) -> tuple[list[Page], bool]:
    """All pages, and whether they contain as many members as their `size` says."""
    pages: list[Page] = []
    before: set[str | None] | None = None
    endpoint = endpoints.members(workspace.slug)
    for _ in range(WALKS):
        try:
            pages = [page async for page in numbered(workspace.client, endpoint)]
        except PagingInCircles:  # page numbers are not documented here
            pages = [page async for page in cursor(workspace.client, endpoint)]
        listed = _distinct(pages)
        # A list that is the same twice is complete, whatever its size says.
        if len(listed) >= (pages[-1].size or 0) or listed == before:
            return pages, True
        before = listed
    return pages, False


def _distinct(pages: list[Page]) -> set[str | None]:
    return {users.source_id(value.get("user")) for page in pages for value in page.values} - {None}
