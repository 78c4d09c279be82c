"""`dx-dagster ui`."""

import os
from contextlib import suppress
from typing import Annotated

import typer

from dx_dagster.cli.ports import Port, require_free


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, Port] = 3000,
) -> None:
    """Serves Dagster's UI behind the guard and the sign-in. `up` starts it.

    Example: dx-dagster ui --port 3001
    """
    from dx_dagster.cli.garbage_collection import collect_often
    from dx_dagster.cli.installation import Installation, packaged
    from dx_dagster.settings import Settings
    from dx_dagster.ui.server import serve

    settings = Settings.read()
    require_free(host, port, option="--port")
    if "DAGSTER_PG_URL" not in os.environ:  # otherwise `up` or `env` has set it
        Installation.open(settings, new=True).activate()
    collect_often()
    with suppress(KeyboardInterrupt):  # the server has shut down by then
        serve(settings, host, port, packaged("workspace.yaml"))
