"""`dx-dagster webhooks`: the hooks at Bitbucket, and the inbox of their deliveries."""

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dx_dagster.cli.arguments import Workspace
from dx_dagster.cli.confirming import Yes, confirm
from dx_dagster.cli.connect import stored_connection
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.installation import with_warehouse
from dx_dagster.cli.json_output import print_json
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dx_dagster.bitbucket import BitbucketClient
    from dx_dagster.warehouse.connections.connections import StoredConnection
    from dx_dagster.warehouse.database import Warehouse
    from dx_dagster.webhooks.hooks import Hook, HookSubject, Result

_LARGEST_ID = 2**63 - 1
webhooks = typer.Typer(help="Manages the webhooks of a workspace and their deliveries.", no_args_is_help=True)

Repositories = Annotated[
    bool,
    typer.Option("--repositories", help="A hook on each repository instead of one on the workspace."),
]


@webhooks.command()
def install(
    workspace: Workspace,
    repositories: Repositories = False,
    rotate: Annotated[bool, typer.Option("--rotate", help="Give the hook a new secret.")] = False,
) -> None:
    """Creates the webhook that delivers to DX_PUBLIC_URL/webhooks/bitbucket, or repairs the existing one.

    Example: DX_PUBLIC_URL=https://dx.example.com dx-dagster webhooks install acme
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        await install_hooks(settings, warehouse, workspace, repositories=repositories, rotate=rotate)

    with_warehouse(work)


async def install_hooks(
    settings: Settings,
    warehouse: "Warehouse",
    workspace: str,
    *,
    repositories: bool = False,
    rotate: bool = False,
    quiet: bool = False,
) -> None:
    """Creates or repairs the hooks at Bitbucket, with a line for each unless `quiet`.

    Raises:
        CommandError: the workspace has no usable connection, or a hook is refused.
    """
    from dx_dagster.webhooks import address, hooks

    url = address.receiver(settings)
    tell = (lambda *_: None) if quiet else _tell
    async with _client(settings, warehouse, workspace) as (client, connection):
        result = await hooks.install_all(
            settings, client, warehouse, connection, url, repositories=repositories, rotate=rotate, tell=tell
        )
    _complain(result.refused)
    if not result.subjects:
        raise CommandError(f"No repository is imported yet. Run first: dx-dagster sync {workspace}")


def _tell(subject: "HookSubject", what: str) -> None:
    print(f"{subject}: {what}")


def _complain(refused: list[str]) -> None:
    """Reports the first refusal and the number of others."""
    if refused:
        more = len(refused) - 1
        others = f"{more} more {'repository' if more == 1 else 'repositories'} failed for the same reason."
        raise CommandError(f"{refused[0]} {others}" if more else refused[0])


@webhooks.command()
def status(
    workspace: Workspace,
    repositories: Repositories = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Checks the hook's settings and shows the last delivery of each event.

    Example: dx-dagster webhooks status acme
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> dict[str, Any]:
        from dx_dagster.warehouse.webhooks import inbox
        from dx_dagster.webhooks import hooks

        url = _address(settings)
        async with _client(settings, warehouse, workspace) as (client, connection):
            found = await hooks.compare_all(client, warehouse, connection, url, repositories=repositories)
        return {
            "address": url,
            "hooks": [shown for one in found for shown in _shown(*one)],
            "events": await inbox.by_event(warehouse, connection.workspace),
            "set_aside": [row._asdict() for row in await inbox.set_aside(warehouse, connection.workspace)],
        }

    answer = with_warehouse(work)
    if json_:
        print_json(answer)
    else:
        _print(answer, workspace, repositories=repositories)


def _address(settings: Settings) -> str | None:
    """The receiver's address, where DX_PUBLIC_URL names one. Installed hooks are recognized by their uuids too."""
    from dx_dagster.webhooks import address

    return address.receiver(settings) if settings.public_url else None


def _shown(subject: "HookSubject", hooks: "Sequence[Hook]", refused: str | None) -> list[dict[str, Any]]:
    """The subject's hooks as `--json` prints them."""
    if not hooks:
        return [{"subject": str(subject), "uuid": None, "url": None, "wrong": [refused or "there is no hook"]}]
    return [{"subject": str(subject), "uuid": one.uuid, "url": one.url, "wrong": list(one.wrong)} for one in hooks]


def _print(answer: dict[str, Any], workspace: str, *, repositories: bool) -> None:
    from rich.table import Column, Table

    from dx_dagster.cli.consoles import plain
    from dx_dagster.clock import ago

    console = plain()
    for hook in answer["hooks"]:
        fine = "correct" if answer["address"] else f"correct if {hook['url']} leads here"
        console.print(f"{hook['subject']}: {'; '.join(hook['wrong']) or fine}")
    if any(hook["wrong"] for hook in answer["hooks"]):
        chosen = f"{workspace} --repositories" if repositories else workspace
        console.print(f"To repair it: dx-dagster webhooks install {chosen}")
        if not repositories:
            console.print(f"Hooks of its repositories: dx-dagster webhooks status {workspace} --repositories")
    # The longest names of events and all columns fit into 80 characters; a narrower terminal wraps the names.
    table = Table(Column("event", overflow="fold"), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("count", "last delivery", "waiting", "set aside"):
        table.add_column(heading, justify="left" if heading == "last delivery" else "right", no_wrap=True)
    for event in answer["events"]:
        last = ago(event["last_received_at"]) if event["last_received_at"] else "never"
        counts = [f"{event[name]:,}" for name in ("deliveries", "waiting", "set_aside")]
        table.add_row(event["event"], counts[0], last, *counts[1:])
    console.print(table)
    for one in answer["set_aside"]:
        console.print(f"{one['id']}  {one['event_key']}  set aside: {one['error']}")
    if answer["set_aside"]:
        console.print(f"To apply them again: dx-dagster webhooks replay {workspace}")


@webhooks.command()
def remove(workspace: Workspace, repositories: Repositories = False, yes: Yes = False) -> None:
    """Removes the hook. Its secret expires, and stored deliveries are still applied.

    Example: dx-dagster webhooks remove acme --yes
    """

    async def work(settings: Settings, warehouse: "Warehouse") -> None:
        await stored_connection(warehouse, workspace)
        what = "Webhooks of the repositories of" if repositories else "The webhook of"
        later = "Without it, changes arrive with syncs alone: within the hour, not within seconds."
        confirm(f"{what} workspace {workspace} will be removed at Bitbucket. {later}", "Remove?", yes=yes)
        result = await remove_hooks(settings, warehouse, workspace, repositories=repositories)
        _complain(result.refused)
        if not result.changed:
            print("No dx-dagster webhook found.")

    with_warehouse(work)


async def remove_hooks(settings: Settings, warehouse: "Warehouse", workspace: str, *, repositories: bool) -> "Result":
    """Removes the hooks at Bitbucket, with a line for each.

    Raises:
        CommandError: the workspace has no usable connection, or Bitbucket does not answer.
    """
    from dx_dagster.webhooks import hooks

    url = _address(settings)
    async with _client(settings, warehouse, workspace) as (client, connection):
        return await hooks.remove_all(client, warehouse, connection, url, repositories=repositories, tell=_tell)


@webhooks.command()
def replay(
    workspace: Workspace,
    events: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[ID]...",
            min=1,
            max=_LARGEST_ID,
            help="Numbers of deliveries; by default, all that were set aside.",
        ),
    ] = None,
) -> None:
    """Applies deliveries again: the given ones, or all that were set aside.

    Example: dx-dagster webhooks replay acme
    """

    async def work(_: Settings, warehouse: "Warehouse") -> int:
        from dx_dagster.warehouse.webhooks import inbox

        connection = await stored_connection(warehouse, workspace)
        missing = await inbox.missing(warehouse, connection.workspace, events or ())
        if missing:
            raise CommandError(
                f"Workspace {workspace} has no delivery {', '.join(map(str, missing))}. Nothing was changed. To list "
                f"those that are set aside: dx-dagster webhooks status {workspace}"
            )
        return await inbox.replay(warehouse, connection.workspace, events or None)

    count = with_warehouse(work)
    print(f"{count:,} {'delivery' if count == 1 else 'deliveries'} will be applied again.")


@asynccontextmanager
async def _client(
    settings: Settings, warehouse: "Warehouse", workspace: str
) -> "AsyncIterator[tuple[BitbucketClient, StoredConnection]]":
    """A client for the workspace, and its connection.

    Raises:
        CommandError: the workspace has no usable connection, or Bitbucket refuses a request.
    """
    from dx_dagster.bitbucket import BitbucketError
    from dx_dagster.cli.progress import Lines
    from dx_dagster.connections import advice
    from dx_dagster.importer.session import NotConnectedError, connection_in_service, open_client, open_pool
    from dx_dagster.webhooks.hooks import HooksRefusedError

    try:
        connection = await connection_in_service(warehouse, workspace)
        pool = await open_pool(settings, warehouse, Lines(), connection)
        async with open_client(settings, warehouse, pool, connection) as client:
            yield client, connection
    except BitbucketError as error:
        raise CommandError(advice.of_error(settings.bitbucket_api_url, error)) from None
    except (HooksRefusedError, NotConnectedError) as error:
        raise CommandError(str(error)) from None
