"""`dx-dagster up`."""

import sys
from contextlib import closing, suppress
from typing import Annotated

import typer

from dx_dagster.cli.doctor import doctor
from dx_dagster.cli.ports import LOOPBACK, DatabasePort, Port, require_database_port, require_distinct, require_free


def up(
    *,
    ui_host: Annotated[
        str,
        typer.Option(help="Address on which Dagster's UI listens; on any other than 127.0.0.1 it requires an API key."),
    ] = "127.0.0.1",
    ui_port: Annotated[int, Port] = 3000,
    api_port: Annotated[int, Port] = 8000,
    database_port: Annotated[int | None, DatabasePort] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the installation as `doctor` does; start nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Runs all services on this machine: Dagster's UI, its daemon, and the API. Ctrl-C ends them.

    A service that ends is started again, and so is the embedded database; one that keeps ending ends the command. The
    terminal shows their logs. One `up` runs on a home, and one daemon on a database.

    Example: dx-dagster up --ui-port 3001
    """
    if check or json_:
        doctor(ui_port, api_port, json_)
        return

    from dx_dagster.cli.database_watch import DatabaseWatch
    from dx_dagster.cli.installation import Installation
    from dx_dagster.cli.keys import require_keys
    from dx_dagster.cli.log_stream import LogStream
    from dx_dagster.cli.running import alone, require_idle, require_intended, require_no_daemon
    from dx_dagster.cli.services import services, where_to_look
    from dx_dagster.cli.supervisor import Supervisor
    from dx_dagster.cli.telling import tell
    from dx_dagster.settings import Settings
    from dx_dagster.telemetry import json_logs
    from dx_dagster.warehouse import embedded

    settings = Settings.read()
    json_logs.set_up(sys.stdout)
    require_idle(settings.home)
    require_distinct({"--ui-port": ui_port, "--api-port": api_port, "--database-port": database_port})
    require_free(ui_host, ui_port, option="--ui-port")
    require_free(LOOPBACK, api_port, option="--api-port")
    require_intended(settings)
    embedded.require_embedded(settings, database_port)
    require_database_port(settings.home, database_port)
    with suppress(KeyboardInterrupt), alone(settings, "up", ui_port, api_port, database_port, ui_host=ui_host):
        tell("Preparing the database ...")
        embedded.listen(settings, database_port)
        installation = Installation.open(settings, new=True)
        require_keys(installation.database_url, settings)
        require_no_daemon(installation.database_url)
        if database_port is not None:
            installation.let_analysts_in()
        settings.remember()
        with (
            closing(DatabaseWatch(settings, installation.database_url, tell)) as database,
            Supervisor(
                settings.log_folder,
                settings.log_size,
                installation.environment,
                installation.dagster_home,
                LogStream(as_json=json_logs.are_set_up()),
            ) as supervisor,
        ):
            tell("Starting Dagster and the API ...")
            supervisor.start(*services(settings, ui_port, api_port, ui_host, database.last_heartbeat))
            supervisor.wait_until_healthy()
            tell(where_to_look(settings, ui_port, api_port, ui_host, database_port=database_port))
            supervisor.watch(database)
