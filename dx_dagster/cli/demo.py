"""`dx-dagster demo`."""

import json
import os
import sys
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr

from dx_dagster.cli.ports import (
    LOOPBACK,
    DatabasePort,
    Port,
    api_url,
    free_port,
    require_database_port,
    require_distinct,
    require_free,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dx_dagster.cli.supervisor import Service, Supervisor
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse.database import Warehouse

WORKSPACE = "acme"
# Valid only for the sandbox on loopback. It is constant, so that a second demo finds its credential valid.
_TOKEN = "ATCTT3-sandbox-of-the-demo"  # noqa: S105
_JIRA_EMAIL, _JIRA_TOKEN = "robot@acme.example", "ATATT3-jira-of-the-demo"
_SECONDS_BETWEEN_CHANGES = 5
# A run that applies deliveries takes three CPU seconds to start: it waits for the next ones instead of ending.
_LINGER_SECONDS = 60
_BEGINNING = "sandbox_began"
_PEOPLE = "people.csv"
_FIRST_QUERY = "SELECT title, state FROM bitbucket_pulls LIMIT 5"


def demo(
    exit_: Annotated[bool, typer.Option("--exit", help="End after the import.")] = False,
    ui_port: Annotated[int, Port] = 3000,
    api_port: Annotated[int, Port] = 8000,
    database_port: Annotated[int | None, DatabasePort] = None,
) -> None:
    """Imports the workspace `acme` from a sandbox Bitbucket Cloud on this machine and shows it in Dagster.

    The workspace's past has stories to find in the charts of insights. Its teams come from a people file, people.csv in
    the demo's folder.

    The sandbox changes every few seconds and delivers the changes to a webhook. The terminal shows each one that has
    reached the tables.

    Its folder is .dx/demo, with an embedded database, unless DX_HOME and DX_DATABASE_URL name others.

    Example: dx-dagster demo --ui-port 3001
    """
    from dx_dagster.cli.database_watch import DatabaseWatch
    from dx_dagster.cli.delivery_lines import Arrivals
    from dx_dagster.cli.installation import Installation
    from dx_dagster.cli.running import alone, require_idle, require_no_daemon
    from dx_dagster.cli.services import services, where_to_look
    from dx_dagster.cli.supervisor import Supervisor
    from dx_dagster.cli.sync import print_outcome, sync_workspace
    from dx_dagster.cli.webhooks import install_hooks
    from dx_dagster.warehouse import embedded

    sandbox_port = free_port()
    settings = _demo_settings(sandbox_port, None if exit_ else api_port)
    require_idle(settings.home)
    require_distinct({"--ui-port": ui_port, "--api-port": api_port, "--database-port": database_port})
    embedded.require_embedded(settings, database_port)
    if not exit_:
        require_free(LOOPBACK, ui_port, option="--ui-port")
        require_free(LOOPBACK, api_port, option="--api-port")
        require_database_port(settings.home, database_port)
    ports = (None, None, None) if exit_ else (ui_port, api_port, database_port)
    with suppress(KeyboardInterrupt), alone(settings, "demo", *ports):
        print("Preparing the database ...", flush=True)
        embedded.listen(settings, ports[2])
        installation = Installation.open(settings, new=True)
        _refuse_real_workspaces(installation.database_url)
        if not exit_:
            require_no_daemon(installation.database_url)
        settings.remember()  # so that later commands on this home send requests to the sandbox only
        installation.activate()
        if ports[2] is not None:
            installation.let_analysts_in()
        with (
            closing(DatabaseWatch(settings, installation.database_url)) as database,
            Supervisor(
                settings.log_folder, settings.log_size, installation.environment, installation.dagster_home
            ) as supervisor,
        ):
            sandbox = _sandbox(sandbox_port, settings, living=not exit_)
            supervisor.start(sandbox)
            _wait_for(sandbox, supervisor)
            if not exit_:
                supervisor.start(
                    *services(settings, ui_port, api_port, heartbeat=database.last_heartbeat)
                )  # they start while the import runs
            _connect(settings)
            installation.run(partial(_import_people, settings.home / _PEOPLE), connections=1)
            if not exit_:  # before the import, so that nothing is missed between the two
                installation.run(lambda warehouse: install_hooks(settings, warehouse, WORKSPACE, quiet=True))
            print_outcome(WORKSPACE, sync_workspace(settings, WORKSPACE))
            print(_how_to_query(settings), flush=True)
            if not exit_:
                supervisor.wait_until_healthy()
                link = installation.run(_sign_in_link, connections=1)
                print(where_to_look(settings, ui_port, api_port, link=link, database_port=database_port), flush=True)
                print(
                    f"\nThe sandbox changes every {_SECONDS_BETWEEN_CHANGES} s. Changes that reached the tables:\n",
                    flush=True,
                )
                supervisor.watch(database, Arrivals(installation.database_url).show)


def _demo_settings(sandbox_port: int, api_port: int | None) -> "Settings":
    """The demo's own settings: its data and the sandbox's address stay apart from a real installation."""
    from dx_dagster.settings import DEFAULT_HOME, Settings, default_home

    os.environ["BITBUCKET_API_URL"] = f"http://127.0.0.1:{sandbox_port}/2.0"
    if api_port is not None:  # the sandbox delivers to it
        os.environ["DX_PUBLIC_URL"] = api_url(api_port)
        os.environ.setdefault("DX_WEBHOOKS_LINGER", str(_LINGER_SECONDS))
    if not os.environ.get("DX_HOME"):
        os.environ["DX_HOME"] = str(default_home(DEFAULT_HOME / "demo"))
    return Settings.read()


def _refuse_real_workspaces(url: str) -> None:
    from dx_dagster.cli.errors import CommandError
    from dx_dagster.warehouse.connecting import connect

    with connect(url) as connection:
        query = "SELECT workspace FROM connections WHERE workspace <> %s AND deleted_at IS NULL LIMIT 1"
        found = connection.execute(query, [WORKSPACE]).fetchone()
    if found:
        raise CommandError(
            f"This installation imports the workspace {found[0]}; the demo would mix its data with generated data. "
            "Unset DX_HOME and DX_DATABASE_URL, or set DX_HOME to an empty folder."
        )


def _beginning(settings: "Settings") -> str:
    """When the sandbox's past ends: the moment of the home's first demo, in ISO 8601.

    It is stored. A later demo on the home would otherwise import another past, with other commits, over the first one.
    """
    from dx_dagster.clock import HOST

    file = settings.home / _BEGINNING
    if not file.exists() or not file.read_text():  # a killed demo may have created it only
        file.write_text(HOST.now().isoformat())
    return file.read_text().strip()


def _sandbox(port: int, settings: "Settings", *, living: bool) -> "Service":
    from dx_dagster.cli.supervisor import Service

    live = ("--live", str(_SECONDS_BETWEEN_CHANGES), "--follow-clock") if living else ()
    world = ("--workspace", WORKSPACE, "--now", _beginning(settings))
    story = ("--story", "--people-file", str(settings.home / _PEOPLE))
    command = (sys.executable, "-m", "dx_dagster.sandbox", "--port", str(port), *world, *story, *live)
    return Service(
        "sandbox", command, environment={"SANDBOX_TOKEN": _TOKEN, "SANDBOX_JIRA": f"{_JIRA_EMAIL}:{_JIRA_TOKEN}"}
    )


def _wait_for(sandbox: "Service", supervisor: "Supervisor") -> None:
    """Waits for the line of JSON that the sandbox writes when it is ready."""
    supervisor.wait_for(sandbox, lambda: any(_is_json(line) for line in supervisor.output_of(sandbox).splitlines()))


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _connect(settings: "Settings") -> None:
    from dx_dagster.cli.arguments import ConnectionType
    from dx_dagster.cli.connect import connect_workspace

    print(f"Importing the workspace {WORKSPACE} ...", flush=True)
    connect_workspace(settings, WORKSPACE, SecretStr(_TOKEN))
    site = settings.bitbucket_api_url.removesuffix("/2.0")
    connect_workspace(
        settings, WORKSPACE, SecretStr(_JIRA_TOKEN), _JIRA_EMAIL, kind=ConnectionType.jira_cloud, jira_url=site
    )


async def _import_people(file: "Path", warehouse: "Warehouse") -> None:
    """Imports the sandbox's people file, unless another one was imported: teams come before the figures of teams."""
    from dx_dagster.insights.people import people_file, stating

    async with warehouse.transaction() as transaction:
        if await transaction.row("SELECT FROM stated_people LIMIT 1") is None:
            await stating.state(transaction, people_file.read(file.read_bytes()))


async def _sign_in_link(warehouse: "Warehouse") -> SecretStr:
    from dx_dagster.warehouse import api_keys

    return await api_keys.create_link(warehouse, "demo")


def _how_to_query(settings: "Settings") -> str:
    from dx_dagster.api.installation import command_line

    return (
        "\nThe tables are in PostgreSQL. To query them with psql, or to use dg and dagster:\n"
        f'\n  eval "$({command_line(settings)} env)"'
        f'\n  psql "$DX_DATABASE_URL" -c "{_FIRST_QUERY}"'
    )
