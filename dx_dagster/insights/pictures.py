"""Pictures of figures, which Dagster's UI shows beside the measures, and their addresses.

The UI loads them from another port or host, without the session of our pages. So an address is signed with a key that
is derived from the installation's keys, and opens its picture alone.
"""

import hmac
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from dx_dagster.insights.figures import TOPICS, Figure
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections import vault

PATH = "/insights/pictures"
WEEKS = 26
PROGRAM = Path(__file__).with_name("draw_svg.py")
# Dagster's UI draws shorter Markdown in place, and hides longer one behind a button.
_LONGEST = 999
_PURPOSE = "pictures"
_PAGES = {figure.name: topic.name for topic in TOPICS[False].values() if topic.name for figure in topic.figures}
_FIGURES = {figure.name: figure for topic in TOPICS[False].values() for figure in topic.figures}
_OF_ASSETS = {
    "measures/pull_requests": ("cycle-time", "without-review"),
    "measures/weeks": ("throughput", "deployments", "change-failure-rate"),
}


def figure_of(name: str) -> Figure | None:
    """The figure of this name, with all hours."""
    return _FIGURES.get(name)


def keys(settings: Settings) -> list[SecretStr]:
    """The keys that sign addresses, the current one first; none before the installation has any."""
    return vault.derived(settings, _PURPOSE)


def markdown(asset: str, workspace: str, api_url: str, keys: Sequence[SecretStr]) -> str:
    """The pictures of an asset's figures as Markdown, each a link to its page; empty where the asset has none.

    It is short enough for Dagster's UI to draw it in place, if need be with fewer pictures.
    """
    shown = ""
    for name in _OF_ASSETS.get(asset, ()):
        if not keys:
            return ""
        signature = _signature(keys[0], workspace, name)
        picture = f"{api_url}{PATH}/{quote(workspace, safe='')}/{name}.svg?{urlencode({'signature': signature})}"
        page = f"{api_url}/insights/{_PAGES.get(name, '')}?{urlencode({'workspace': workspace})}#{name}"
        longer = f"{shown}\n\n[![{_FIGURES[name].title}]({picture})]({page})".strip()
        if len(longer) > _LONGEST:
            break
        shown = longer
    return shown


def is_signed(workspace: str, name: str, signature: str, keys: Sequence[SecretStr]) -> bool:
    """Whether the signature is that of the address of this picture."""
    made = (_signature(key, workspace, name) for key in keys)
    return any(hmac.compare_digest(one.encode(), signature.encode()) for one in made)


def _signature(key: SecretStr, workspace: str, name: str) -> str:
    return hmac.digest(key.get_secret_value().encode(), f"{workspace}/{name}".encode(), "sha256").hex()[:32]
