"""`dx-dagster webhooks`: the hooks at Bitbucket and the inbox behind them."""

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dx_dagster.cli.connect import Workspace, not_connected, with_warehouse
from dx_dagster.cli.errors import CommandError
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from dx_dagster.bitbucket import BitbucketClient
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse
    from dx_dagster.webhooks.hooks import HookSubject

webhooks = typer.Typer(help="Manages the webhook of a workspace, and what it delivered.", no_args_is_help=True)

Repositories = Annotated[
    bool,
    typer.Option("--repositories", help="A hook on each repository, where the workspace's own may not be managed."),
]


@webhooks.command()
def install(
    workspace: Workspace,
    repositories: Repositories = False,
    rotate: Annotated[bool, typer.Option("--rotate", help="Give the hook a new secret.")] = False,
) -> None:
    """Makes the webhook at DX_PUBLIC_URL/webhooks/bitbucket, or mends the one that is there.

    Example: DX_PUBLIC_URL=https://dx.example.com dx-dagster webhooks install acme
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse.connections.vault import Vault
        from dx_dagster.warehouse.webhooks import secrets
        from dx_dagster.webhooks import hooks

        url, vault = hooks.address(settings), Vault.of(settings)
        async with _client(settings, warehouse, workspace) as (client, connection):
            secret = None if rotate else await secrets.current(warehouse, vault, connection.id)
            chosen = secret or await secrets.add(warehouse, vault, connection.id)
            chosen_subjects = await hooks.subjects(warehouse, connection.workspace, repositories=repositories)
            made = await secrets.hooks(warehouse, connection.id)
            refused: list[str] = []
            for subject in chosen_subjects:
                try:
                    done = await hooks.install(client, warehouse, subject, url, made=made, secret=chosen)
                except hooks.HooksRefusedError as error:
                    refused.append(str(error))
                else:
                    print(f"{subject}: {done}")
            # A hook that could not be given the new secret still signs with the old one.
            if rotate and not refused:
                await secrets.retire(warehouse, connection.id, but=chosen[0])
        _complain(refused)
        if not chosen_subjects:
            raise CommandError(f"No repository is imported yet: run dx-dagster sync {workspace} first.")

    with_warehouse(work)


def _complain(refused: list[str]) -> None:
    """Says what one of them was refused, and of how many others that is true."""
    if refused:
        more = f" So it is with {len(refused) - 1} more of them." if len(refused) > 1 else ""
        raise CommandError(refused[0] + more)


@webhooks.command()
def status(
    workspace: Workspace,
    repositories: Repositories = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compares the hook with what it should be, and shows the last delivery of each event.

    Example: dx-dagster webhooks status acme
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> dict[str, Any]:
        from dx_dagster.warehouse.webhooks import inbox, secrets
        from dx_dagster.webhooks import hooks

        url = _address(settings)
        found: list[dict[str, Any]] = []
        async with _client(settings, warehouse, workspace) as (client, connection):
            made = await secrets.hooks(warehouse, connection.id)
            for subject in await hooks.subjects(warehouse, connection.workspace, repositories=repositories):
                found += await _shown(client, subject, url, made)
        return {
            "address": url,
            "hooks": found,
            "events": await inbox.by_event(warehouse, connection.workspace),
            "set_aside": [row._asdict() for row in await inbox.set_aside(warehouse, connection.workspace)],
        }

    answer = with_warehouse(work)
    if json_:
        print(json.dumps(answer, default=str))
    else:
        _print(answer, workspace, repositories=repositories)


def _address(settings: Settings) -> str | None:
    """Where Bitbucket delivers, if anybody has said so; hooks that we made are known by their uuids all the same."""
    from dx_dagster.webhooks import hooks

    return hooks.address(settings) if settings.public_url else None


async def _shown(
    client: "BitbucketClient", subject: "HookSubject", url: str | None, made: "Collection[str]"
) -> list[dict[str, Any]]:
    """Our hooks on the subject and what is wrong with them. With many repositories, some may be none of ours."""
    from dx_dagster.webhooks import hooks

    try:
        ours = await hooks.find(client, subject, url, made)
    except hooks.HooksRefusedError as error:
        if subject.repository is None:
            raise
        return [{"subject": str(subject), "uuid": None, "url": None, "wrong": [str(error)]}]
    if not ours:
        return [{"subject": str(subject), "uuid": None, "url": None, "wrong": ["there is no hook"]}]
    return [{"subject": str(subject), "uuid": one.uuid, "url": one.url, "wrong": list(one.wrong)} for one in ours]


def _print(answer: dict[str, Any], workspace: str, *, repositories: bool) -> None:
    from rich.table import Table

    from dx_dagster.cli.consoles import plain

    console = plain()
    for hook in answer["hooks"]:
        fine = "as it should be" if answer["address"] else f"as it should be if {hook['url']} leads here"
        console.print(f"{hook['subject']}: {'; '.join(hook['wrong']) or fine}")
    if any(hook["wrong"] for hook in answer["hooks"]):
        chosen = f"{workspace} --repositories" if repositories else workspace
        console.print(f"To mend it: dx-dagster webhooks install {chosen}")
        if not repositories:
            console.print(f"Hooks on its repositories: dx-dagster webhooks status {workspace} --repositories")
    table = Table("event", "deliveries", "last delivery", "last applied", "waiting", "set aside")
    for event in answer["events"]:
        moments = (str(event[name] or "")[:19] for name in ("last_received_at", "last_applied_at"))
        table.add_row(
            event["event"], str(event["deliveries"]), *moments, str(event["waiting"]), str(event["set_aside"])
        )
    console.print(table)
    for one in answer["set_aside"]:
        console.print(f"{one['id']}  {one['event_key']}  set aside: {one['error']}")
    if answer["set_aside"]:
        console.print(f"To apply them again: dx-dagster webhooks replay {workspace}")


@webhooks.command()
def remove(workspace: Workspace, repositories: Repositories = False) -> None:
    """Removes the hook and lets its secret expire. What was delivered is still applied.

    Example: dx-dagster webhooks remove acme
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        from dx_dagster.warehouse.webhooks import secrets
        from dx_dagster.webhooks import hooks

        url = _address(settings)
        removed = 0
        refused: list[str] = []
        async with _client(settings, warehouse, workspace) as (client, connection):
            made = await secrets.hooks(warehouse, connection.id)
            for subject in await hooks.subjects(warehouse, connection.workspace, repositories=repositories):
                try:
                    for one in await hooks.find(client, subject, url, made):
                        await hooks.remove(client, one)
                        print(f"{subject}: removed")
                        removed += 1
                except hooks.HooksRefusedError as error:
                    refused.append(str(error))
            if not refused:
                await secrets.retire(warehouse, connection.id)
        _complain(refused)
        if not removed:
            print("There was no hook of ours.")

    with_warehouse(work)


@webhooks.command()
def replay(
    workspace: Workspace,
    events: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Numbers of deliveries; all that were set aside.")
    ] = None,
) -> None:
    """Applies deliveries again: those that were set aside, or the ones named.

    Example: dx-dagster webhooks replay acme
    """

    async def work(_: Settings, warehouse: "Warehouse") -> int:
        from dx_dagster.warehouse.connections import connections
        from dx_dagster.warehouse.webhooks import inbox

        connection = await connections.find(warehouse, workspace)
        if connection is None:
            raise not_connected(workspace)
        return await inbox.replay(warehouse, connection.workspace, events or None)

    print(f"{with_warehouse(work)} deliveries will be applied again.")


@asynccontextmanager
async def _client(
    settings: Settings, warehouse: "Warehouse", workspace: str
) -> "AsyncIterator[tuple[BitbucketClient, StoredConnection]]":
    """A client for the workspace, and its connection.

    Raises:
        CommandError: there is none that works, or Bitbucket refuses.
    """
    from dx_dagster.bitbucket import BitbucketError
    from dx_dagster.cli.consoles import plain
    from dx_dagster.cli.progress import Lines
    from dx_dagster.importer.session import NotConnectedError, open_client, open_pool
    from dx_dagster.warehouse.connections import connections
    from dx_dagster.webhooks.hooks import HooksRefusedError

    connection = await connections.find(warehouse, workspace)
    if connection is None:
        raise not_connected(workspace)
    try:
        pool = await open_pool(settings, warehouse, Lines(plain(stderr=True)), workspace)
        async with open_client(settings, warehouse, pool, workspace) as client:
            yield client, connection
    except (BitbucketError, HooksRefusedError, NotConnectedError) as error:
        raise CommandError(str(error)) from None
