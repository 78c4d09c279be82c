"""The environment, read once into one frozen object."""

import re
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_CRON = re.compile(r"@[a-z]+|\S+(\s+\S+){4}")


def is_loopback(host: str | None) -> bool:
    """Whether a name or an address is this machine's for itself: localhost, 127.0.0.0/8, ::1."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False  # another name


def _has_port(parts: SplitResult) -> bool:
    """Whether the port, if there is one, is a number."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


class SettingsError(Exception):
    """A variable of the environment that cannot be used; the message names it and says how to mend it."""


class Settings(BaseSettings):
    """What the environment says; `docs/configuration.md` describes each variable.

    Secrets are `SecretStr`, so that no repr, log line or traceback shows them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    home: Annotated[Path, Field(alias="DX_HOME")] = Path(".dx")
    database_url: Annotated[SecretStr | None, Field(alias="DX_DATABASE_URL")] = None
    secret_keys: Annotated[SecretStr | None, Field(alias="DX_SECRET_KEYS")] = None
    bitbucket_api_url: Annotated[str, Field(alias="BITBUCKET_API_URL")] = "https://api.bitbucket.org/2.0"
    budget_window: Annotated[float, Field(alias="DX_BUDGET_WINDOW", gt=0)] = 3600.0
    max_in_flight: Annotated[int, Field(alias="DX_MAX_IN_FLIGHT", ge=1, le=64)] = 8
    public_url: Annotated[str | None, Field(alias="DX_PUBLIC_URL")] = None

    sync_cron: Annotated[str, Field(alias="DX_SYNC_CRON")] = "*/5 * * * *"
    sync_every: Annotated[float, Field(alias="DX_SYNC_EVERY", gt=0)] = 3600.0
    sync_pace: Annotated[int | None, Field(alias="DX_SYNC_PACE", gt=0)] = None
    quiet_after_days: Annotated[float, Field(alias="DX_QUIET_AFTER_DAYS", ge=0)] = 30.0
    quiet_sync_every: Annotated[float, Field(alias="DX_QUIET_SYNC_EVERY", gt=0)] = 86_400.0
    reconcile_cron: Annotated[str, Field(alias="DX_RECONCILE_CRON")] = "17 2 * * *"
    reconcile_most_pulls: Annotated[int, Field(alias="DX_RECONCILE_MOST_PULLS", ge=0)] = 25_000
    webhooks_keep_days: Annotated[float, Field(alias="DX_WEBHOOKS_KEEP_DAYS", gt=0)] = 30.0
    webhooks_linger: Annotated[float, Field(alias="DX_WEBHOOKS_LINGER", ge=0)] = 10.0

    bitbucket_token: Annotated[SecretStr | None, Field(alias="BITBUCKET_TOKEN")] = None
    bitbucket_email: Annotated[str | None, Field(alias="BITBUCKET_EMAIL")] = None
    bitbucket_api_token: Annotated[SecretStr | None, Field(alias="BITBUCKET_API_TOKEN")] = None
    jira_email: Annotated[str | None, Field(alias="JIRA_EMAIL")] = None
    jira_api_token: Annotated[SecretStr | None, Field(alias="JIRA_API_TOKEN")] = None

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("bitbucket_api_url")
    @classmethod
    def _encrypted_or_loopback(cls, url: str) -> str:
        """A token in plain text goes to this machine only."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http(s) address such as https://api.bitbucket.org/2.0")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f"must use https: plain http would send your token readable to {parts.hostname}")
        if parts.username or parts.password:
            raise ValueError("must not hold a user name or password; credentials come from `dx-dagster connect`")
        if parts.query or parts.fragment or not _has_port(parts):
            raise ValueError("must be host, port and path alone, such as https://api.bitbucket.org/2.0")
        return url.rstrip("/")

    @field_validator("sync_cron", "reconcile_cron")
    @classmethod
    def _has_five_fields(cls, expression: str) -> str:
        """Whether Dagster takes it is known when it has been loaded: `automation/schedules.py`."""
        if not _CRON.fullmatch(expression.strip()):
            raise ValueError(f"is {expression!r}, which is no cron expression; it has five fields, as */5 * * * *")
        return expression

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuses here what the drivers would quote, password and all."""
        if url is None:
            return None
        written = url.get_secret_value()
        parts = urlsplit(written)
        if not written.startswith(("postgresql://", "postgres://")) or not _has_port(parts):
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        if parts.netloc.count("@") > 1 or re.search(r"%(?![0-9A-Fa-f]{2})", written):
            raise ValueError("holds a character that must be escaped: in a password, write @ as %40 and % as %25")
        return url

    @cached_property
    def log_folder(self) -> Path:
        return self.home / "logs"

    @classmethod
    def read(cls) -> Self:
        """The settings of this process.

        Raises:
            SettingsError: a variable cannot be used.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "the environment"
            reason = str(first["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")
            raise SettingsError(f"{name} {reason}.") from None
