"""Answers of the Data Cloud API: `{"ok": true, …}`, or `{"ok": false, "error": CODE, "message": …}`."""

from datetime import UTC, date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from dx_dagster.connections.actions import Failure
from dx_dagster.warehouse.connections.connections import ConnectionType, StoredConnection
from dx_dagster.warehouse.connections.credentials import CredentialType, ShownCredential

ErrorCode = Literal[
    "not_authed",
    "connection_not_found",
    "credential_not_found",
    "invalid_json",
    "invalid_credentials",
    "invalid_permissions",
    "no_resources",
    "unavailable",
    "rate_limited",
    "invalid_idempotency_key",
]

_HOW: dict[CredentialType, str] = {
    "access_token": "Give it as secrets.api_token, alone.",
    "api_token": "Give it as secrets.password, with settings.username.",
}


class RefusedError(Exception):
    """The request is answered with an error code."""

    def __init__(
        self, code: str, message: str, *, status: int = 422, curl: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.curl, self.headers = code, message, status, curl, headers

    @classmethod
    def of(cls, failure: Failure) -> "RefusedError":
        how = _HOW[failure.looks_like] if failure.looks_like else ""
        return cls(failure.code, f"{failure.sentence} {how}".strip(), curl=failure.curl)

    def response(self) -> JSONResponse:
        body = {"ok": False, "error": self.code, "message": self.message}
        return JSONResponse(body | ({"curl": self.curl} if self.curl else {}), self.status, self.headers)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Refusal(Answer):
    ok: Literal[False]
    error: ErrorCode
    message: str = Field(description="Why, in a sentence.")
    curl: str | None = Field(
        None, description="After a failed verification: a command that shows the same, with a placeholder."
    )


class ConnectionItem(Answer):
    id: int
    type: ConnectionType
    name: str
    state: str = Field(description="verified or failed by its last verification; failing: its last sync read nothing")
    last_error: str | None = Field(description="Why it is failing: a code and a sentence.")
    disabled_at: str | None
    last_synced_at: str | None
    created_at: str
    supports_multiple_credentials: bool


class ConnectionDetails(ConnectionItem):
    settings: dict[str, Any]
    disabled_reason: str | None
    updated_at: str


class CredentialItem(Answer):
    id: int
    type: ConnectionType
    label: str
    settings: dict[str, Any]
    created_at: str
    disabled_at: str | None
    expiration_date: str | None


class CredentialDetails(CredentialItem):
    deleted_at: str | None


class Success(Answer):
    ok: Literal[True] = True


class StatusesAnswer(Success):
    unknown_source_ids: list[str] = Field(description="Given ones that no imported account has; nothing is stored.")


class ConnectionsAnswer(Success):
    connections: list[ConnectionItem]


class ConnectionAnswer(Success):
    connection: ConnectionDetails


class CredentialsAnswer(Success):
    credentials: list[CredentialItem]


class CredentialAnswer(Success):
    credential: CredentialItem


class CredentialDetailsAnswer(Success):
    credential: CredentialDetails


def time(moment: datetime | None) -> str | None:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z" if moment else None


def day(date_: date | None) -> str | None:
    return date_.isoformat() if date_ else None


def connection(stored: StoredConnection) -> dict[str, Any]:
    return {
        "id": stored.id,
        "type": stored.type,
        "name": stored.name,
        "state": stored.standing,
        "last_error": stored.last_error,
        "disabled_at": time(stored.disabled_at),
        "last_synced_at": time(stored.last_synced_at),
        "created_at": time(stored.created_at),
        "supports_multiple_credentials": True,
    }


def whole_connection(stored: StoredConnection) -> dict[str, Any]:
    return connection(stored) | {
        "settings": {"workspace": stored.workspace} | stored.settings,
        "disabled_reason": stored.disabled_reason,
        "updated_at": time(stored.updated_at),
    }


def credential(of: StoredConnection, shown: ShownCredential) -> dict[str, Any]:
    username = "jira_user" if of.type == "jira_cloud" else "username"
    return {
        "id": shown.id,
        "type": of.type,
        "label": shown.label,
        "settings": {username: shown.username} if shown.username else {},
        "created_at": time(shown.created_at),
        "disabled_at": time(shown.disabled_at),
        "expiration_date": day(shown.expiration_date),
    }


def whole_credential(of: StoredConnection, shown: ShownCredential) -> dict[str, Any]:
    return credential(of, shown) | {"deleted_at": time(shown.deleted_at)}
