"""Starts Dagster's webserver as `dagster-webserver` does, with another application around it.

Dagster has no public interface for that, so this uses the parts of its command. `pyproject.toml` limits the versions
of Dagster to those that have them.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from uvicorn.config import LOGGING_CONFIG

from dx_dagster.http_limits import Limits, options
from dx_dagster.settings import Settings
from dx_dagster.telemetry import json_logs
from dx_dagster.ui.app import create_app

# The defaults of `dagster-webserver`.
_STATEMENT_MILLISECONDS = 15_000
_RECYCLE_SECONDS = 3600
_MOST_OVERFLOW = 20
_POLL_MILLISECONDS = 2000

_SECONDS_BETWEEN_PINGS = 5.0
_SECONDS_BETWEEN_RELOADS = 60.0

_log = logging.getLogger(__name__)


def serve(settings: Settings, host: str, port: int, workspace: Path) -> None:
    """Serves the UI until an interrupt; its code servers end with it.

    Raises:
        KeyboardInterrupt: at the end.
    """
    if json_logs.set_up():
        logging.getLogger("dagster").setLevel(logging.INFO)
    else:
        configure_loggers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _MOST_OVERFLOW)
        target = WorkspaceFileTarget([str(workspace)])
        with WorkspaceProcessContext(instance, target, version=__version__, code_server_log_level="info") as context:
            dagster = create_app_from_workspace_process_context(context, live_data_poll_rate=_POLL_MILLISECONDS)
            with _code_servers_kept(context):
                uvicorn.run(
                    create_app(dagster, settings, host),
                    host=host,
                    port=port,
                    log_config=None if json_logs.are_set_up() else LOGGING_CONFIG,
                    log_level="warning",
                    server_header=False,
                    # By default uvicorn trusts every process on this machine.
                    proxy_headers=bool(settings.proxies),
                    forwarded_allow_ips=settings.proxies,
                    **options(Limits.of(settings)),
                )


@contextmanager
def _code_servers_kept(context: WorkspaceProcessContext) -> Iterator[None]:
    """Replaces code servers that ended. Dagster's daemon does so itself; its web server waits for a click on Reload."""
    ended = threading.Event()

    def keep() -> None:
        pause = _SECONDS_BETWEEN_PINGS
        while not ended.wait(pause):
            pause = _SECONDS_BETWEEN_PINGS
            for name in _without_server(context):
                _log.warning("The code server of %s does not answer and is replaced.", name)
                try:
                    context.reload_code_location(name)
                except Exception:  # noqa: BLE001 - whatever it is, the next attempt may succeed
                    _log.exception("The code server of %s could not be replaced.", name)
                pause = _SECONDS_BETWEEN_RELOADS  # loading takes seconds of CPU, and may fail again

    thread = threading.Thread(target=keep, name="keeps the code servers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def _without_server(context: WorkspaceProcessContext) -> list[str]:
    """The code locations that failed to load, or whose server does not answer."""
    entries = context.create_request_context().get_code_location_entries()
    return [name for name, entry in entries.items() if entry.load_error or not _answers(entry.code_location)]


def _answers(location: object) -> bool:
    if not isinstance(location, GrpcServerCodeLocation):
        return True
    try:
        location.client.ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True
