"""The processes of an installation."""

import shlex
import sys
import sysconfig
from pathlib import Path

from dx_dagster.cli.installation import packaged
from dx_dagster.cli.supervisor import Service
from dx_dagster.settings import Settings
from dx_dagster.ui.app import may_need_sign_in

LOOPBACK = "127.0.0.1"


def services(ui_port: int, api_port: int, ui_host: str = LOOPBACK) -> tuple[Service, ...]:
    """Dagster's UI and daemon, and the API."""
    scripts = Path(sysconfig.get_path("scripts"))
    workspace = ("-w", str(packaged("workspace.yaml")))
    ours = (sys.executable, "-m", "dx_dagster.cli")
    return (
        Service(
            "ui",
            (*ours, "ui", "--host", ui_host, "--port", str(ui_port)),
            health=(ui_port, "/server_info"),
            health_host=_reached_at(ui_host),
        ),
        Service("daemon", (str(scripts / "dagster-daemon"), "run", *workspace)),
        Service(
            "api",
            (*ours, "serve", "--host", LOOPBACK, "--port", str(api_port)),
            health=(api_port, "/readyz"),
        ),
    )


def _reached_at(host: str) -> str:
    """An address of this machine at which a server answers that listens on this one."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not listened on


def where_to_look(settings: Settings, ui_port: int, api_port: int, ui_host: str = LOOPBACK) -> str:
    ui = _reached_at(ui_host)
    asking = "Dagster's UI, connections" if may_need_sign_in(settings, ui_host) else "Connections"
    command = shlex.quote(str(Path(sysconfig.get_path("scripts")) / "dx-dagster"))
    return (
        f"\n  Dagster's UI   http://{f'[{ui}]' if ':' in ui else ui}:{ui_port}"
        f"\n  Connections    http://{LOOPBACK}:{api_port}/connections"
        f"\n  API            http://{LOOPBACK}:{api_port}/docs"
        f"\n  Logs           {settings.log_folder}"
        f"\n\n{asking} and API ask for a key, which this makes:"
        f"\n\n  DX_HOME={shlex.quote(str(settings.home))} {command} api-keys create NAME"
        "\n\nCtrl-C ends everything."
    )
