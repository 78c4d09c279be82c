"""`dx-dagster serve`."""

import gc
import logging
import sys
from contextlib import suppress
from typing import Annotated

import typer

from dx_dagster.cli.ports import Port, require_free


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, Port] = 8000,
) -> None:
    """Serves webhooks, the Data Cloud API and the connections page alone, without Dagster.

    Example: dx-dagster serve --host 0.0.0.0 --port 8080
    """
    import psycopg
    import uvicorn

    from dx_dagster.api.app import create_app
    from dx_dagster.cli.keys import require_keys
    from dx_dagster.settings import Settings
    from dx_dagster.warehouse.embedded import database_url

    settings = Settings.read()
    require_free(host, port, option="--port")
    with suppress(KeyboardInterrupt):  # uvicorn has shut down in good order by then
        with suppress(psycopg.Error):  # /readyz says so, and it serves once the database answers
            require_keys(database_url(settings), settings)
        application = create_app(settings)
        try:
            settings.remember()
        except OSError as error:  # it needs nothing of its home where database and keys are elsewhere
            print(f"Other commands will not know the settings of this one: {error}.", file=sys.stderr)
        logging.getLogger("uvicorn.access").addFilter(_without_query)
        # What is loaded by now stays. Looking through it for garbage again and again would stop every answer for 0.1 s.
        gc.collect()
        gc.freeze()
        uvicorn.run(
            application,
            host=host,
            port=port,
            server_header=False,
            # uvicorn would believe every process on this machine.
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=settings.proxies,
        )


def _without_query(record: logging.LogRecord) -> bool:
    """A query may hold what somebody should not have put there, such as a key."""
    if isinstance(record.args, tuple) and len(record.args) == 5:  # noqa: PLR2004 - client, method, path, version, status
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).split("?", 1)[0], *rest)
    return True
