"""The environment, and what the home remembers of an earlier one, read into one frozen object.

`up`, `demo` and `serve` write the settings that they run with into `DX_HOME/settings`, so that every command on that
home runs with the same. Secrets, and what says where the installation is, are never written.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import ByteSize, Field, SecretStr, ValidationError, ValidatorFunctionWrapHandler, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dx_dagster.business_week import BusinessWeek
from dx_dagster.time_zones import unabbreviated

_FILE = "settings"
DEFAULT_HOME = Path(".dx")
_IN_A_HOME = ("postgres", "secret_keys", "settings", "dagster")
_UNEXPANDED = re.compile(r"\$\w|\$\{\w")
_CRON = re.compile(r"@[a-z]+|\S+(\s+\S+){4}")
_BROKERS = frozenset({"redis", "rediss", "amqp", "amqps"})
_DAY = 86_400  # seconds
_MOST_DAYS = 36_500  # without end, and still a time that Python and PostgreSQL know
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]*:[0-9a-f:.]*")


def is_loopback(host: str | None) -> bool:
    """Whether a name or an address is a loopback one: localhost, 127.0.0.0/8, ::1."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False  # another name


def _has_port(parts: SplitResult) -> bool:
    """Whether the port is valid or absent."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def brokers(url: SecretStr) -> list[SecretStr]:
    """The addresses in DX_CELERY_BROKER: Celery takes several, and uses the first one that answers."""
    return [SecretStr(one) for one in url.get_secret_value().split(";")]


def _listed(value: str | None) -> list[str]:
    return [part for one in (value or "").split(",") if (part := one.strip())]


class SettingsError(Exception):
    """A variable has an invalid value. The message names the variable and the remedy."""

    variable: str | None = None


class _Private:
    """Marks a setting that is neither stored in the home nor printed by `dx-dagster env`."""


_PRIVATE = _Private()
_HEADER = (
    "# The settings that dx-dagster was last started with here (up, demo, serve); the environment comes before them.\n"
)


def make_home(home: Path) -> None:
    """Creates the folder of an installation, with a .gitignore for all of it."""
    if not home.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)  # another command may create it at the same time
        (home / ".gitignore").write_text("*\n")


def private_draft(file: Path, content: str) -> Path:
    """Writes a draft of the file beside it, readable only by its owner.

    The caller replaces the file with it in one step: another command may be reading the file.
    """
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    return draft


def is_home(folder: Path) -> bool:
    """Whether the folder holds an installation."""
    return any(os.path.exists(folder / name) for name in _IN_A_HOME)  # noqa: PTH110 - never raises


def default_home(name: Path = DEFAULT_HOME) -> Path:
    """The home where DX_HOME is unset: the folder of this name here, or the nearest one above that is in use.

    A folder above that belongs to another user is left out: its settings say where tokens are sent.

    Raises:
        SettingsError: the current folder was removed.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise SettingsError("The current folder no longer exists. Change to another one, or set DX_HOME.") from None
    for folder in (here, *here.parents):
        home = folder / name
        if is_home(home) and (folder == here or home.stat().st_uid == os.geteuid()):
            return home
    return here / name


def _absolute(home: str | Path) -> Path:
    with suppress(RuntimeError):  # no user of that name; `Settings` rejects it
        home = Path(home).expanduser()
    return Path(home).absolute()


def _seen() -> object:
    """What the settings are read from, as it is now."""
    home = _absolute(os.environ.get("DX_HOME") or default_home())
    try:
        file = (home / _FILE).stat()
    except OSError:
        return dict(os.environ), home, None
    return dict(os.environ), home, (file.st_ino, file.st_size, file.st_mtime_ns)


class _Remembered(PydanticBaseSettingsSource):
    """Settings stored in the home, and the home itself; the environment overrides them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[object, str, bool]:  # noqa: ARG002
        return None, field_name, False  # all at once, in `__call__`

    def __call__(self) -> dict[str, object]:
        given = self.current_state.get("DX_HOME") or self.current_state.get("home")
        home = str(given or default_home())
        return {"DX_HOME": home, **remembered(_absolute(home))}


def remembered(home: Path) -> Mapping[str, str]:
    """The settings stored in the home, by variable name.

    Raises:
        SettingsError: the file is unreadable or malformed.
    """
    file = home / _FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise SettingsError(f"{file} cannot be read: {reason}. Correct or remove it.") from None
    found = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if not line.strip() or line.startswith("#"):
            continue
        if not equals:
            raise SettingsError(f"Line {number} of {file} is not NAME=VALUE. Correct or remove it.")
        found[name.strip()] = value.strip()
    return {name: value for name, value in found.items() if name in Settings.memorable() and value}


def _text(value: object) -> str:
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


class Settings(BaseSettings):
    """The settings of a process; `docs/configuration.md` describes each variable.

    Secrets are `SecretStr`, so that no repr, log line or traceback shows them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)
    _last: ClassVar[tuple[object, Any] | None] = None

    home: Annotated[Path, Field(alias="DX_HOME"), _PRIVATE] = DEFAULT_HOME
    database_url: Annotated[SecretStr | None, Field(alias="DX_DATABASE_URL"), _PRIVATE] = None
    reports_database_url: Annotated[SecretStr | None, Field(alias="DX_REPORTS_DATABASE_URL"), _PRIVATE] = None
    celery_broker: Annotated[SecretStr | None, Field(alias="DX_CELERY_BROKER"), _PRIVATE] = None
    concurrent_runs: Annotated[int, Field(alias="DX_CONCURRENT_RUNS", ge=3)] = 5
    secret_keys: Annotated[SecretStr | None, Field(alias="DX_SECRET_KEYS"), _PRIVATE] = None
    bitbucket_api_url: Annotated[str, Field(alias="BITBUCKET_API_URL")] = "https://api.bitbucket.org/2.0"
    budget_window: Annotated[float, Field(alias="DX_BUDGET_WINDOW", gt=0, le=_DAY)] = 3600.0
    max_in_flight: Annotated[int, Field(alias="DX_MAX_IN_FLIGHT", ge=1, le=64)] = 32
    pull_request_size: Annotated[Literal["on", "off"], Field(alias="DX_PULL_REQUEST_SIZE")] = "off"
    public_url: Annotated[str | None, Field(alias="DX_PUBLIC_URL")] = None
    ui_url: Annotated[str | None, Field(alias="DX_UI_URL")] = None
    api_url: Annotated[str | None, Field(alias="DX_API_URL")] = None
    allowed_hosts: Annotated[str | None, Field(alias="DX_ALLOWED_HOSTS")] = None
    trusted_proxies: Annotated[str | None, Field(alias="DX_TRUSTED_PROXIES")] = None
    ui_sign_in: Annotated[Literal["on", "off"] | None, Field(alias="DX_UI_SIGN_IN")] = None
    log_size: Annotated[ByteSize, Field(alias="DX_LOG_SIZE", ge=1_000_000)] = ByteSize(20_000_000)
    log_format: Annotated[Literal["text", "json"], Field(alias="DX_LOG_FORMAT"), _PRIVATE] = "text"
    traces: Annotated[Literal["on", "off"], Field(alias="DX_TRACES"), _PRIVATE] = "off"
    deployments: Annotated[Literal["on", "off"], Field(alias="DX_DEPLOYMENTS")] = "on"
    http_connections: Annotated[int, Field(alias="DX_HTTP_CONNECTIONS", ge=16)] = 1000
    http_connections_per_address: Annotated[int, Field(alias="DX_HTTP_CONNECTIONS_PER_ADDRESS", ge=1)] = 200

    sync_cron: Annotated[str, Field(alias="DX_SYNC_CRON")] = "*/5 * * * *"
    sync_every: Annotated[float, Field(alias="DX_SYNC_EVERY", gt=0, le=365 * _DAY)] = 3600.0
    sync_pace: Annotated[int | None, Field(alias="DX_SYNC_PACE", gt=0)] = None
    pace: Annotated[float, Field(alias="DX_PACE", ge=0, le=1)] = 0.05
    reconcile_cron: Annotated[str, Field(alias="DX_RECONCILE_CRON")] = "17 2 * * *"
    reconcile_most_pulls: Annotated[int, Field(alias="DX_RECONCILE_MOST_PULLS", ge=0)] = 25_000
    reconcile_pipeline_days: Annotated[float, Field(alias="DX_RECONCILE_PIPELINE_DAYS", ge=0, le=_MOST_DAYS)] = 14.0
    keep_runs_days: Annotated[float, Field(alias="DX_KEEP_RUNS_DAYS", gt=0, le=_MOST_DAYS)] = 30.0
    upkeep_cron: Annotated[str, Field(alias="DX_UPKEEP_CRON")] = "47 3 * * *"
    webhooks_keep_days: Annotated[float, Field(alias="DX_WEBHOOKS_KEEP_DAYS", gt=0, le=_MOST_DAYS)] = 30.0
    webhooks_runs: Annotated[int, Field(alias="DX_WEBHOOKS_RUNS", ge=1)] = 2
    webhooks_linger: Annotated[float, Field(alias="DX_WEBHOOKS_LINGER", ge=0, le=600)] = 10.0

    time_zone: Annotated[str, Field(alias="DX_TIME_ZONE")] = "UTC"
    business_hours: Annotated[str, Field(alias="DX_BUSINESS_HOURS")] = "Mon-Fri 08:00-18:00"

    bitbucket_token: Annotated[SecretStr | None, Field(alias="BITBUCKET_TOKEN"), _PRIVATE] = None
    bitbucket_email: Annotated[str | None, Field(alias="BITBUCKET_EMAIL"), _PRIVATE] = None
    bitbucket_api_token: Annotated[SecretStr | None, Field(alias="BITBUCKET_API_TOKEN"), _PRIVATE] = None
    jira_email: Annotated[str | None, Field(alias="JIRA_EMAIL"), _PRIVATE] = None
    jira_api_token: Annotated[SecretStr | None, Field(alias="JIRA_API_TOKEN"), _PRIVATE] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes them by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Remembered(settings_cls)

    @classmethod
    def memorable(cls) -> dict[str, str]:
        """The fields that the home stores, by variable name."""
        return {
            field.alias: name
            for name, field in cls.model_fields.items()
            if field.alias and not any(isinstance(mark, _Private) for mark in field.metadata)
        }

    @field_validator("home")
    @classmethod
    def _home_is_absolute(cls, home: Path) -> Path:
        """The absolute path; rejects names with control characters or unexpanded variables."""
        if not str(home).isprintable():
            raise ValueError(f"is {str(home)!r}; it must not contain line breaks or other control characters")
        if _UNEXPANDED.match(str(home)):
            raise ValueError(f"is {str(home)!r}, and the variable in it is not expanded; write the folder's path")
        absolute = _absolute(home)
        if str(home).startswith("~") and absolute == home.absolute():
            raise ValueError(f"is {str(home)!r}, and this user does not exist; write the folder's path")
        return absolute

    @field_validator("log_size", mode="wrap")
    @classmethod
    def _is_a_size(cls, size: object, validate: ValidatorFunctionWrapHandler) -> ByteSize:
        try:
            return cast("ByteSize", validate(size))
        except ValidationError:
            raise ValueError(f"is {size!r}; it must be a size of at least 1MB, such as 20MB") from None

    @field_validator("bitbucket_api_url")
    @classmethod
    def _encrypted_or_loopback(cls, url: str) -> str:
        """Allows plain http to this machine only: it exposes the token."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http(s) address such as https://api.bitbucket.org/2.0")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f"must use https: plain http would expose the token on the way to {parts.hostname}")
        if parts.username or parts.password:
            raise ValueError("must not contain a user name or password; credentials come from `dx-dagster connect`")
        if parts.query or parts.fragment or not _has_port(parts):
            raise ValueError("must consist of host, port and path only, such as https://api.bitbucket.org/2.0")
        return url.rstrip("/")

    @field_validator("ui_url", "api_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "")
        if url is not None and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("must be an http(s) address such as https://dagster.example.com")
        return url

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, hosts: str | None) -> str | None:
        for host in _listed(hosts):
            if not _HOST_NAME.fullmatch(host.lower()):
                raise ValueError(
                    f"contains {host!r}; list names without scheme and port, such as dx.example.com,dx.lan"
                )
        return hosts

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: str | None) -> str | None:
        for proxy in _listed(proxies):
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError(
                    f"contains {proxy!r}; list addresses and networks, such as 10.0.0.7,10.1.0.0/16"
                ) from None
        return proxies

    @field_validator("sync_cron", "reconcile_cron")
    @classmethod
    def _has_five_fields(cls, expression: str) -> str:
        """Checks the form; `automation/schedules.py` checks it with Dagster's parser."""
        if not _CRON.fullmatch(expression.strip()):
            raise ValueError(
                f"is {expression!r}, which is not a cron expression; it needs five fields, such as */5 * * * *"
            )
        return expression

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        """Checks the name against Python's zones; `insights/business_hours.py` checks it against the server's."""
        try:
            return unabbreviated(ZoneInfo(zone).key)
        except (ValueError, KeyError, OSError):  # a path, an unknown name, a folder such as Europe
            raise ValueError(
                f"is {zone!r}, which is not an IANA time zone; write a name such as Europe/Berlin or UTC"
            ) from None

    @field_validator("business_hours")
    @classmethod
    def _are_hours(cls, hours: str) -> str:
        BusinessWeek.parse(hours)
        return hours

    @field_validator("database_url", "reports_database_url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        """Rejects addresses that the drivers would quote in an error, with the password."""
        if url is None:
            return None
        written = url.get_secret_value()
        parts = urlsplit(written)
        if not written.startswith(("postgresql://", "postgres://")) or not _has_port(parts):
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        if parts.netloc.count("@") > 1 or re.search(r"%(?![0-9A-Fa-f]{2})", written):
            raise ValueError("contains a character that must be escaped: in a password, write @ as %40 and % as %25")
        return url

    @field_validator("celery_broker")
    @classmethod
    def _is_a_broker(cls, url: SecretStr | None) -> SecretStr | None:
        """Rejects addresses that Celery would quote in an error, with the password."""
        if url is None:
            return None
        for one in brokers(url):
            parts = urlsplit(one.get_secret_value())
            if parts.scheme not in _BROKERS or not parts.hostname or not _has_port(parts):
                raise ValueError("must look like redis://:password@host:6379/0 or amqp://user:password@host:5672//")
        return url

    @cached_property
    def served_hosts(self) -> frozenset[str]:
        """The names of DX_ALLOWED_HOSTS, in lower case."""
        return frozenset(host.lower() for host in _listed(self.allowed_hosts))

    @cached_property
    def api_address(self) -> str | None:
        """Where people's browsers reach the API, as far as it is known."""
        url = self.api_url or self.public_url or ""
        return url.rstrip("/") if url.startswith(("https://", "http://")) else None

    @cached_property
    def public_host(self) -> str | None:
        """The name in DX_PUBLIC_URL."""
        try:
            return urlsplit(self.public_url or "").hostname
        except ValueError:
            return None

    @cached_property
    def proxies(self) -> list[str]:
        """The addresses and networks of DX_TRUSTED_PROXIES."""
        return _listed(self.trusted_proxies)

    @cached_property
    def report_folder(self) -> Path:
        return self.home / "reports"

    @cached_property
    def log_folder(self) -> Path:
        return self.home / "logs"

    @classmethod
    def read(cls, **instead: Any) -> Self:
        """The settings of this process; `instead` has values by variable name that come before the environment.

        They are read again only after the environment or the home's file has changed: a sync asks for them often.

        Raises:
            SettingsError: a variable cannot be used.
        """
        if instead:
            return cls._validated(**instead)
        seen = _seen()
        if cls._last is None or cls._last[0] != seen:
            cls._last = seen, cls._validated()
        last: Self = cls._last[1]
        return last

    @staticmethod
    def given(**values: Any) -> "Settings":
        """Settings without the environment and the home's file; `values` are by field, and None is the default.

        Raises:
            SettingsError: a value cannot be used. The message names the field.
        """
        aliases = {name: str(field.alias) for name, field in Settings.model_fields.items()}
        return _Given.read(**{aliases[name]: value for name, value in values.items() if value is not None})

    @classmethod
    def _validated(cls, **instead: Any) -> Self:
        try:
            return cls(**instead)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "the environment"
            reason = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")
            refused = SettingsError(f"{cls._named(name)} {reason}.")
            refused.variable = name
            raise refused from None

    @classmethod
    def _named(cls, name: str) -> str:
        """The variable, and the home's file if it comes from there."""
        if any(value for variable, value in os.environ.items() if variable.upper() == name):
            return name
        home = _absolute(os.environ.get("DX_HOME") or default_home())
        return f"In {home / _FILE}: {name}" if name in remembered(home) else name

    def changed(self) -> dict[str, str]:
        """The settings that differ from their defaults, by variable name."""
        fields = type(self).model_fields
        return {
            variable: value
            for variable, value in self._written().items()
            if getattr(self, name := self.memorable()[variable]) != fields[name].default
        }

    def remember(self) -> None:
        """Stores the settings for later commands on this home, whose environment overrides them.

        Raises:
            OSError: the home is not writable.
        """
        wanted = {variable: value for variable, value in self._written().items() if self._is_set(variable)}
        if wanted == remembered(self.home):
            return
        make_home(self.home)
        lines = "".join(f"{variable}={value}\n" for variable, value in sorted(wanted.items()))
        private_draft(self.home / _FILE, _HEADER + lines).replace(self.home / _FILE)

    def _is_set(self, variable: str) -> bool:
        return self.memorable()[variable] in self.model_fields_set

    def _written(self) -> dict[str, str]:
        """The settings as values of variables, without those that are None."""
        values = {variable: getattr(self, name) for variable, name in self.memorable().items()}
        return {variable: _text(value) for variable, value in values.items() if value is not None}


class _Given(Settings):
    """Settings that come from nowhere but their values."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes them by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @classmethod
    def _named(cls, name: str) -> str:
        return next((field for field, info in Settings.model_fields.items() if info.alias == name), name)
