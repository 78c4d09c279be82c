"""Starts Dagster's webserver as `dagster-webserver` does, with another application around it.

Dagster has no public interface for that, so this uses the parts of its command. `pyproject.toml` limits the versions
of Dagster to those that have them.
"""

from pathlib import Path

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__

from dx_dagster.http_limits import Limits, options
from dx_dagster.settings import Settings
from dx_dagster.ui.app import create_app

# The defaults of `dagster-webserver`.
_STATEMENT_MILLISECONDS = 15_000
_RECYCLE_SECONDS = 3600
_MOST_OVERFLOW = 20
_POLL_MILLISECONDS = 2000


def serve(settings: Settings, host: str, port: int, workspace: Path) -> None:
    """Serves the UI until an interrupt; its code servers end with it.

    Raises:
        KeyboardInterrupt: at the end.
    """
    configure_loggers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(_STATEMENT_MILLISECONDS, _RECYCLE_SECONDS, _MOST_OVERFLOW)
        target = WorkspaceFileTarget([str(workspace)])
        with WorkspaceProcessContext(instance, target, version=__version__, code_server_log_level="info") as context:
            dagster = create_app_from_workspace_process_context(context, live_data_poll_rate=_POLL_MILLISECONDS)
            uvicorn.run(
                create_app(dagster, settings, host),
                host=host,
                port=port,
                log_level="warning",
                server_header=False,
                # By default uvicorn trusts every process on this machine.
                proxy_headers=bool(settings.proxies),
                forwarded_allow_ips=settings.proxies,
                **options(Limits.of(settings)),
            )
