"""What the checks of `dx-dagster doctor` work on, and what they find."""

import os
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from dx_dagster.settings import DEFAULT_HOME, Settings, SettingsError, is_home

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_SECONDS = 5


class State(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """The result of a check: what it found, and what to do where that is not good."""

    check: str
    state: State
    text: str


@dataclass
class Examination:
    """What the checks work on, and what earlier ones have found.

    Attributes:
        complaints: why settings cannot be used; those have their defaults.
        url: the database's address, once it has answered.
        is_reached: whether the API has answered.
        times: the times that servers gave, each with the host's time of that moment.
    """

    settings: Settings
    ui_port: int
    api_port: int
    complaints: list[str] = field(default_factory=list)
    url: str | None = None
    is_current: bool = False
    is_reached: bool = False
    times: list[tuple[str, datetime, datetime]] = field(default_factory=list)

    @classmethod
    def begin(cls, ui_port: int, api_port: int) -> "Examination":
        settings, complaints = _readable()
        return cls(settings, ui_port, api_port, complaints)

    @property
    def home_origin(self) -> str:
        home = self.settings.home
        if os.environ.get("DX_HOME"):
            return "from DX_HOME"
        if not home.is_absolute():
            return "the current folder no longer exists"
        if home != Path.cwd() / DEFAULT_HOME:
            return "found above the current folder"
        return "in the current folder" if is_home(home) else "the default; it does not exist yet"

    @property
    def database(self) -> str:
        """The database's address without its password."""
        if self.settings.database_url is None:
            return str(self.settings.home / "postgres")
        parts = urlsplit(self.settings.database_url.get_secret_value())
        return without_password(parts._replace(scheme="postgresql"), parse_qs(parts.query).get("host", [""])[0])

    @property
    def database_origin(self) -> str:
        return "embedded, in the home" if self.settings.database_url is None else "from DX_DATABASE_URL"

    @property
    def is_embedded(self) -> bool:
        return self.settings.database_url is None


def unknown(name: str, why: str) -> Finding:
    return Finding(name, State.WARNING, f"Not checked. {why}")


def without_password(parts: SplitResult, other_host: str = "") -> str:
    """The address; `other_host` is the one where it names none."""
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{parts.hostname or other_host}{port}{parts.path}"


class _Forgetful(Settings):
    """The settings of the environment alone."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, **sources: Any) -> Any:  # type: ignore[override]
        return super().settings_customise_sources(settings_cls, **sources)[:2]


def _readable() -> tuple[Settings, list[str]]:
    """The settings, with the default in place of each that cannot be used, and why."""
    complaints: list[str] = []
    source: type[Settings] = Settings
    instead: dict[str, Any] = {}
    defaults: Mapping[str | None, Any] = {one.alias: one.default for one in Settings.model_fields.values()}
    while True:
        try:
            return source.read(**instead), complaints
        except SettingsError as error:
            complaints.append(str(error))
            name = error.variable
            if name is not None and name in defaults and name not in instead:
                instead[name] = defaults[name]
            elif source is Settings:
                source = _Forgetful
            else:
                return Settings.model_construct(), complaints
        except OSError:  # the current folder no longer exists
            return Settings.model_construct(), complaints
