"""The processes of an installation."""

import shlex
import sys
import sysconfig
from pathlib import Path

from dx_dagster.cli.installation import packaged
from dx_dagster.cli.processes import Service
from dx_dagster.settings import Settings

LOOPBACK = "127.0.0.1"


def services(ui_port: int, api_port: int) -> tuple[Service, ...]:
    """Dagster's UI and daemon, and the API."""
    scripts = Path(sysconfig.get_path("scripts"))
    workspace = ("-w", str(packaged("workspace.yaml")))
    return (
        Service(
            "ui",
            (str(scripts / "dagster-webserver"), "-h", LOOPBACK, "-p", str(ui_port), *workspace),
            health=(ui_port, "/server_info"),
        ),
        Service("daemon", (str(scripts / "dagster-daemon"), "run", *workspace)),
        Service(
            "api",
            (sys.executable, "-m", "dx_dagster.cli", "serve", "--host", LOOPBACK, "--port", str(api_port)),
            health=(api_port, "/readyz"),
        ),
    )


def where_to_look(settings: Settings, ui_port: int, api_port: int) -> str:
    command = shlex.quote(str(Path(sysconfig.get_path("scripts")) / "dx-dagster"))
    return (
        f"\n  Dagster's UI   http://{LOOPBACK}:{ui_port}"
        f"\n  Connections    http://{LOOPBACK}:{api_port}/connections"
        f"\n  API            http://{LOOPBACK}:{api_port}/docs"
        f"\n  Logs           {settings.log_folder}"
        "\n\nConnections and API ask for a key, which this makes:"
        f"\n\n  DX_HOME={shlex.quote(str(settings.home))} {command} api-keys create NAME"
        "\n\nCtrl-C ends everything."
    )
