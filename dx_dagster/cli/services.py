"""The services of an installation, and their addresses."""

import sys
from collections.abc import Callable
from functools import partial

from pydantic import SecretStr

from dx_dagster.api.installation import command_line
from dx_dagster.cli.ports import LOOPBACK, api_url
from dx_dagster.cli.supervisor import Service, status_of
from dx_dagster.settings import Settings
from dx_dagster.ui.app import may_need_sign_in
from dx_dagster.warehouse.api_keys import LINK_LASTS

_SILENT_PROBES_OF_DAEMON = 15  # it sends heartbeats every 30 s, and loads the definitions first


def services(
    settings: Settings,
    ui_port: int,
    api_port: int,
    ui_host: str = LOOPBACK,
    heartbeat: Callable[[], object] | None = None,
) -> tuple[Service, ...]:
    """Dagster's UI, its daemon, and the API; `heartbeat` gives the daemon's newest one."""
    ours = (sys.executable, "-m", "dx_dagster.cli")
    # For runs. The API itself needs no address of its own, and would remember it.
    of_api = {} if settings.api_address else {"DX_API_URL": api_url(api_port)}
    return (
        Service(
            "ui",
            (*ours, "ui", "--host", ui_host, "--port", str(ui_port)),
            health=(ui_port, "/server_info"),
            health_host=_reached_at(ui_host),
            shows_life=partial(_answers, _reached_at(ui_host), ui_port, "/server_info"),
            environment=of_api,
        ),
        Service(
            "daemon",
            (*ours, "daemon"),
            shows_life=None if heartbeat is None else _changing(heartbeat),
            silent_probes=_SILENT_PROBES_OF_DAEMON,
            environment=of_api,
        ),
        Service(
            "api",
            (*ours, "serve", "--host", LOOPBACK, "--port", str(api_port)),
            health=(api_port, "/readyz"),
            shows_life=partial(_answers, LOOPBACK, api_port, "/healthz"),
            environment={} if settings.ui_url else {"DX_UI_URL": _url_of(ui_host, ui_port)},
        ),
    )


def _answers(host: str, port: int, path: str) -> bool:
    return status_of(host, port, path) is not None


def _changing(heartbeat: Callable[[], object]) -> Callable[[], bool]:
    """Whether the heartbeat is another one than at the last call. Clocks are not compared: they may be wrong."""
    last: object = None

    def is_another() -> bool:
        nonlocal last
        before, last = last, heartbeat()
        return last != before

    return is_another


def _reached_at(host: str) -> str:
    """The address at which a server is reached that listens on `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not listened on


def _url_of(ui_host: str, ui_port: int) -> str:
    ui = _reached_at(ui_host)
    return f"http://{f'[{ui}]' if ':' in ui else ui}:{ui_port}"


def where_to_look(
    settings: Settings,
    ui_port: int,
    api_port: int,
    ui_host: str = LOOPBACK,
    *,
    link: SecretStr | None = None,
    database_port: int | None = None,
) -> str:
    """The addresses of a started installation; `link` is a token that signs in to the connections page once."""
    ui, api = _url_of(ui_host, ui_port), api_url(api_port)
    page, once = "/connections", ""
    if link is not None:
        page = f"/connections/sign-in?once={link.get_secret_value()}"
        once = f"\n                 (signs in once, within {LINK_LASTS.total_seconds() / 60:.0f} minutes)"
    database = ""
    if database_port is not None:
        see = f"{command_line(settings)} env --database"
        database = f"\n\nThe database listens on {LOOPBACK}:{database_port}. Its address, with the password:\n\n  {see}"
    pages = "Dagster's UI, the connections page" if may_need_sign_in(settings, ui_host) else "The connections page"
    return (
        "\nOpen in a browser:\n"
        f"\n  Dagster's UI   {ui}"
        f"\n  Lineage        {ui}/asset-groups"
        f"\n  Connections    {api}{page}{once}"
        f"\n  Insights       {api}/insights"
        f"\n  API            {api}/docs"
        f"{database}"
        f"\n\nLogs are in {settings.log_folder}."
        f"\n\n{pages} and the API need an API key. To create one:"
        f"\n\n  {command_line(settings)} api-keys create NAME"
        "\n\nCtrl-C ends everything."
    )
