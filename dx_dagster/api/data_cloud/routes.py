"""The Data Cloud API: the methods that DX documents for connections and their credentials."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path
from fastapi.security import HTTPBearer
from pydantic import SecretStr
from starlette.requests import Request

from dx_dagster.api.data_cloud import envelope
from dx_dagster.api.data_cloud.arguments import (
    CONNECTION_TYPES,
    MOST_USERS,
    STATUSES,
    Arguments,
    Statuses,
    arguments,
    statuses,
)
from dx_dagster.api.data_cloud.envelope import RefusedError
from dx_dagster.api.installation import ServedInstallation, installation
from dx_dagster.api.keys import Keys, RefusedKeyError, TooManyRequestsError, WrongKeyError
from dx_dagster.connections import actions
from dx_dagster.connections.actions import Changes, CredentialNotFoundError, VerificationFailed
from dx_dagster.connections.input import Fields
from dx_dagster.insights.people import by_hand
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import StoredConnection
from dx_dagster.warehouse.idempotency import ReusedError

_LARGEST_ID = 2**31 - 1
_LONGEST_KEY = 255

bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="A key of `dx-dagster api-keys create`.")


async def authenticated(request: Request, _: Annotated[object, Depends(bearer)]) -> None:
    """Requires an API key.

    Raises:
        RefusedError: not_authed, or rate_limited after too many requests or wrong keys.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    key = SecretStr(given.strip())
    if scheme.lower() != "bearer" or not key:
        raise _not_authed()
    await recognized(request, key)


async def recognized(request: Request, key: SecretStr, *, for_insights: bool = False) -> api_keys.ApiKey:
    """The API key of the request.

    `for_insights`: whether a key for insights alone will do.

    Raises:
        RefusedError: not_authed, or rate_limited after too many requests or wrong keys.
    """
    keys: Keys = request.app.state.keys
    try:
        return await keys.recognized(request, key, for_insights=for_insights)
    except WrongKeyError:
        raise _not_authed() from None
    except RefusedKeyError as error:
        code = "rate_limited" if isinstance(error, TooManyRequestsError) else "not_authed"
        raise RefusedError(code, str(error), status=error.status, headers=error.headers) from None


def _not_authed() -> RefusedError:
    return RefusedError(
        "not_authed",
        "The request did not include a valid API key.",
        status=401,
        headers={"WWW-Authenticate": "Bearer"},
    )


ConnectionId = Annotated[int, Path(ge=1, le=_LARGEST_ID, description="Number of the connection.")]
CredentialId = Annotated[int, Path(ge=1, le=_LARGEST_ID, description="Number of the credential.")]
Served = Annotated[ServedInstallation, Depends(installation)]


async def connection_of(served: Served, connection_id: int) -> StoredConnection:
    connection = await connections.get(await served.warehouse(), connection_id)
    if connection is None:
        raise RefusedError("connection_not_found", "No connection exists for the given connection_id.")
    return connection


async def _in_path(served: Served, connection_id: ConnectionId) -> StoredConnection:
    return await connection_of(served, connection_id)


Found = Annotated[StoredConnection, Depends(_in_path)]
Once = Annotated[str | None, Header(description="Any text of the client's, such as a UUID: one for each request.")]
Body = Annotated[Arguments, Depends(arguments)]

_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"model": envelope.Refusal, "description": "not_authed"},
    403: {"model": envelope.Refusal, "description": "not_authed: the API key opens insights and nothing else."},
    422: {"model": envelope.Refusal, "description": "The request was refused; `error` is the reason."},
    429: {
        "model": envelope.Refusal,
        "description": "rate_limited: too many requests with this key, or wrong keys from this address.",
    },
    503: {"model": envelope.Refusal, "description": "unavailable: the database does not answer."},
}


def _takes(**schema: Any) -> dict[str, Any]:
    """OpenAPI's description of a body, which `arguments` parses."""
    content = {"schema": {"type": "object", **schema}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": content,
                "application/x-www-form-urlencoded": {
                    **content,
                    "encoding": {name: {"style": "deepObject", "explode": True} for name in ("settings", "secrets")},
                },
            },
        }
    }


_ID = {"type": "integer", "minimum": 1, "maximum": _LARGEST_ID, "description": "Number of the credential."}
_FIELDS = {
    "label": {"type": "string", "maxLength": 4000, "description": "Display name; by default generated."},
    "settings": {
        "type": "object",
        "properties": {
            "username": {"type": "string", "description": "bitbucket: e-mail address of the Atlassian account."},
            "jira_user": {"type": "string", "description": "jira_cloud: e-mail address of the account."},
        },
    },
    "secrets": {
        "type": "object",
        "properties": {
            "api_token": {
                "type": "string",
                "format": "password",
                "description": "bitbucket: a workspace access token, alone. jira_cloud: the Atlassian API token.",
            },
            "password": {
                "type": "string",
                "format": "password",
                "description": "bitbucket: the Atlassian API token of `username`.",
            },
        },
    },
    "expiration_date": {"type": ["string", "null"], "format": "date", "description": "Day of expiry."},
}

routes = APIRouter(prefix="/api", dependencies=[Depends(authenticated)], responses=_REFUSED, tags=["Data Cloud API"])


@routes.get("/connections.list", response_model=envelope.ConnectionsAnswer)
async def connections_list(served: Served) -> dict[str, Any]:
    """Returns all connections, ordered by type."""
    every = await connections.all_connections(await served.warehouse())
    ordered = sorted(every, key=lambda one: (one.type, one.id))
    return {"ok": True, "connections": [envelope.connection(one) for one in ordered]}


@routes.get("/connections.info/{connection_id}", response_model=envelope.ConnectionAnswer)
async def connections_info(connection: Found) -> dict[str, Any]:
    """Returns details of one connection."""
    return {"ok": True, "connection": envelope.whole_connection(connection)}


@routes.get("/connections/{connection_id}/credentials.list", response_model=envelope.CredentialsAnswer)
async def credentials_list(served: Served, connection: Found) -> dict[str, Any]:
    """Lists the credentials of a connection, without their secrets."""
    every = await credentials.shown(await served.warehouse(), connection.id)
    return {"ok": True, "credentials": [envelope.credential(connection, one) for one in every]}


@routes.get(
    "/connections/{connection_id}/credentials.info/{credential_id}", response_model=envelope.CredentialDetailsAnswer
)
async def credentials_info(served: Served, connection: Found, credential_id: CredentialId) -> dict[str, Any]:
    """Returns details of one credential, removed ones included, without its secret."""
    try:
        one = await actions.show(await served.warehouse(), connection, credential_id, deleted=True)
    except CredentialNotFoundError:
        raise _no_credential() from None
    return {"ok": True, "credential": envelope.whole_credential(connection, one)}


@routes.post(
    "/connections/{connection_id}/credentials.create",
    status_code=201,
    response_model=envelope.CredentialAnswer,
    openapi_extra=_takes(properties=_FIELDS),
)
async def credentials_create(
    served: Served, connection: Found, body: Body, idempotency_key: Once = None
) -> dict[str, Any]:
    """Verifies a credential, then adds it. A failed verification stores nothing.

    For Bitbucket: a workspace access token as `secrets.api_token`, alone; or an Atlassian API token with its e-mail
    address, as `secrets.password` and `settings.username`.

    With the header `Idempotency-Key`, the same request sent again within a day is answered with the same credential and
    verifies nothing. The same key with another body is refused.
    """
    fields = Fields(body.label, body.settings, body.secrets, body.expiration_date)
    try:
        if idempotency_key is None:
            one = await actions.add_fields(served.settings, await served.warehouse(), connection, fields)
        else:
            one = await actions.add_once(
                served.settings, await served.warehouse(), connection, fields, _usable(idempotency_key)
            )
    except ReusedError:
        raise RefusedError(
            "invalid_idempotency_key", "This Idempotency-Key belongs to a request with another body."
        ) from None
    except VerificationFailed as error:
        raise RefusedError.of(error.failure) from None
    except actions.ConnectionNotFoundError:
        raise RefusedError("connection_not_found", "The connection was removed meanwhile.") from None
    return {"ok": True, "credential": envelope.credential(connection, one)}


@routes.post(
    "/connections/{connection_id}/credentials.update",
    response_model=envelope.CredentialAnswer,
    openapi_extra=_takes(required=["id"], properties={"id": _ID, **_FIELDS}),
)
async def credentials_update(served: Served, connection: Found, body: Body) -> dict[str, Any]:
    """Verifies the changed credential, then stores it. Missing arguments stay; a failure changes nothing."""
    changes = Changes(body.label, body.settings, body.secrets, "expiration_date" in body.given, body.expiration_date)
    warehouse = await served.warehouse()
    try:
        one = await actions.update(served.settings, warehouse, connection, _id(body), changes)
    except VerificationFailed as error:
        raise RefusedError.of(error.failure) from None
    except CredentialNotFoundError:
        raise _no_credential() from None
    return {"ok": True, "credential": envelope.credential(connection, one)}


@routes.post(
    "/connections/{connection_id}/credentials.delete",
    response_model=envelope.Success,
    openapi_extra=_takes(required=["id"], properties={"id": _ID}),
)
async def credentials_delete(served: Served, connection: Found, body: Body) -> dict[str, Any]:
    """Removes a credential: it is no longer listed or used, and its secret is erased."""
    try:
        await actions.remove(await served.warehouse(), connection, _id(body))
    except CredentialNotFoundError:
        raise _no_credential() from None
    return {"ok": True}


_TYPES_OF_USERS = {"ai_agent": "ai_bot"}
"""Our names of DX's statuses, where they differ."""
_STATUSES = {
    "connection_type": {"type": "string", "enum": list(CONNECTION_TYPES), "description": "bitbucket"},
    "users": {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_USERS,
        "description": "source_id and status of each account: human, bot or ai_agent.",
        "items": {
            "type": "object",
            "required": ["source_id", "status"],
            "properties": {
                "source_id": {"type": "string", "minLength": 1, "description": "bitbucket_users.source_id"},
                "status": {"type": "string", "enum": list(STATUSES)},
            },
        },
    },
    "instance_url": {"type": "string", "description": "Not used: all accounts are of Bitbucket Cloud."},
}


@routes.post(
    "/users.setUserStatuses",
    response_model=envelope.StatusesAnswer,
    openapi_extra=_takes(required=["connection_type", "users"], properties=_STATUSES),
)
async def users_set_user_statuses(served: Served, body: Annotated[Statuses, Depends(statuses)]) -> dict[str, Any]:
    """Marks imported accounts as human, bot or ai_agent. It wins over what is imported, now and later.

    Durations of pull requests follow at the next sync.
    """
    types = {source_id: _TYPES_OF_USERS.get(status, status) for source_id, status in body.statuses.items()}
    unknown = list(types)
    if body.connection_type == "bitbucket":
        warehouse = await served.warehouse()
        async with warehouse.transaction() as transaction:
            unknown = await by_hand.set_types(transaction, types)
    return {"ok": True, "unknown_source_ids": unknown}


def _usable(key: str) -> str:
    if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise RefusedError("invalid_idempotency_key", f"An Idempotency-Key has 1 to {_LONGEST_KEY} characters.")
    return key


def _id(body: Arguments) -> int:
    if body.id is None:
        raise _no_credential()
    return body.id


def _no_credential() -> RefusedError:
    return RefusedError("credential_not_found", "No credential exists for the given id on that connection.")
