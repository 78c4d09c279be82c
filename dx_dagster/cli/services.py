"""The services of an installation, and their addresses."""

import sys

from pydantic import SecretStr

from dx_dagster.api.installation import command_line
from dx_dagster.cli.supervisor import Service
from dx_dagster.settings import Settings
from dx_dagster.ui.app import may_need_sign_in
from dx_dagster.warehouse.api_keys import LINK_LASTS

LOOPBACK = "127.0.0.1"


def services(ui_port: int, api_port: int, ui_host: str = LOOPBACK) -> tuple[Service, ...]:
    """Dagster's UI, its daemon, and the API."""
    ours = (sys.executable, "-m", "dx_dagster.cli")
    return (
        Service(
            "ui",
            (*ours, "ui", "--host", ui_host, "--port", str(ui_port)),
            health=(ui_port, "/server_info"),
            health_host=_reached_at(ui_host),
        ),
        Service("daemon", (*ours, "daemon")),
        Service(
            "api",
            (*ours, "serve", "--host", LOOPBACK, "--port", str(api_port)),
            health=(api_port, "/readyz"),
        ),
    )


def _reached_at(host: str) -> str:
    """The address at which a server is reached that listens on `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not listened on


def where_to_look(
    settings: Settings, ui_port: int, api_port: int, ui_host: str = LOOPBACK, link: SecretStr | None = None
) -> str:
    """The addresses of a started installation; `link` is a token that signs in to the connections page once."""
    ui = _reached_at(ui_host)
    ui_url, api_url = f"http://{f'[{ui}]' if ':' in ui else ui}:{ui_port}", f"http://{LOOPBACK}:{api_port}"
    page, once = "/connections", ""
    if link is not None:
        page = f"/connections/sign-in?once={link.get_secret_value()}"
        once = f"\n                 (signs in once, within {LINK_LASTS.total_seconds() / 60:.0f} minutes)"
    pages = "Dagster's UI, the connections page" if may_need_sign_in(settings, ui_host) else "The connections page"
    return (
        "\nOpen in a browser:\n"
        f"\n  Dagster's UI   {ui_url}"
        f"\n  Lineage        {ui_url}/asset-groups"
        f"\n  Connections    {api_url}{page}{once}"
        f"\n  API            {api_url}/docs"
        f"\n\nLogs are in {settings.log_folder}."
        f"\n\n{pages} and the API need an API key. To create one:"
        f"\n\n  {command_line(settings)} api-keys create NAME"
        "\n\nCtrl-C ends everything."
    )
