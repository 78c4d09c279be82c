"""`dx-dagster serve`."""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated

import typer

from dx_dagster.cli.ports import Port, require_free

_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_REFUSED_A_MINUTE = 60

_log = logging.getLogger(__name__)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, Port] = 8000,
) -> None:
    """Serves the receiver of webhooks, the Data Cloud API, the connections pages and insights, without Dagster.

    Example: dx-dagster serve --host 0.0.0.0 --port 8080
    """
    import psycopg
    import uvicorn
    from uvicorn.config import LOGGING_CONFIG

    from dx_dagster.api.app import create_app
    from dx_dagster.cli.garbage_collection import collect_often
    from dx_dagster.cli.keys import require_keys
    from dx_dagster.cli.running import require_intended, running_in
    from dx_dagster.http_limits import Limits, options
    from dx_dagster.settings import Settings
    from dx_dagster.telemetry import json_logs
    from dx_dagster.warehouse.embedded import database_url

    settings = Settings.read()
    has_own_format = json_logs.set_up()
    require_free(host, port, option="--port")
    require_intended(settings)
    with suppress(KeyboardInterrupt):  # uvicorn has shut down by then
        with suppress(psycopg.Error):  # /readyz reports it, and requests succeed once the database answers
            require_keys(database_url(settings), settings)
        application = create_app(settings)
        try:
            # `up` has done so, and tells this process the address of its own UI, which another one may not have.
            if running_in(settings.home) is None:
                settings.remember()
        except OSError as error:  # with DX_DATABASE_URL and DX_SECRET_KEYS set, the home may be read-only
            print(f"The settings could not be stored for other commands: {error}.", file=sys.stderr)
        logging.getLogger("uvicorn.access").addFilter(_access_lines())
        collect_often()
        uvicorn.run(
            application,
            host=host,
            port=port,
            log_config=None if has_own_format else LOGGING_CONFIG,
            server_header=False,
            # By default uvicorn trusts every process on this machine.
            proxy_headers=bool(settings.proxies),
            forwarded_allow_ips=settings.proxies,
            **options(Limits.of(settings)),
        )


def _access_lines() -> Callable[[logging.LogRecord], bool]:
    """A filter for uvicorn's access log.

    Deliveries have no line: the inbox has accepted ones, and the receiver logs refused ones. Lines of refused requests
    are rate limited. Queries are removed: they may contain a key or the token of a sign-in link.
    """
    from dx_dagster.http_limits import RareLines
    from dx_dagster.webhooks.address import PATH

    refused = RareLines(_log, _REFUSED_A_MINUTE)

    def allows(record: logging.LogRecord) -> bool:
        if not isinstance(record.args, tuple) or len(record.args) != 5:  # noqa: PLR2004 - as uvicorn puts them
            return True
        client, method, target, version, status = record.args
        path = str(target).split("?", 1)[0]
        record.args = (client, method, path, version, status)
        failed = isinstance(status, int) and status >= HTTPStatus.BAD_REQUEST
        if path == PATH or (path in _PROBES and not failed):
            return False
        return not failed or refused.allows(f"requests answered {status}")

    return allows
