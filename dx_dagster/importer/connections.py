"""Connecting a workspace: a credential is verified before anything is stored."""

import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode

from pydantic import SecretStr

from dx_dagster.bitbucket import (
    BitbucketClient,
    BitbucketError,
    Credential,
    CredentialPool,
    CredentialsExhausted,
    Endpoint,
    Forbidden,
    Gone,
    MemoryLedger,
    NotFound,
    Retries,
    Unauthorized,
    endpoints,
)
from dx_dagster.frames.reading import records, text
from dx_dagster.settings import Settings
from dx_dagster.warehouse import connections
from dx_dagster.warehouse.connections import ConnectionType, NewCredential, StoredConnection, StoredCredential
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.vault import Vault

# Somebody waits for the answer.
_IMPATIENT = Retries(attempts=3, total=30.0, patience=30.0)
_REPOSITORIES_TO_TRY = 5


@dataclass(frozen=True)
class Failure:
    """Why a credential does not do.

    Attributes:
        code: invalid_credentials, invalid_permissions or no_resources; unavailable when nobody could tell.
        reason: one sentence.
        curl: a command that shows the same answer, with a placeholder where the secret belongs.
    """

    code: str
    reason: str
    curl: str


class VerificationFailed(Exception):  # noqa: N818 - the outcome of a check, not a fault of ours
    """The credential was refused, and nothing was stored."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.reason}")
        self.failure = failure


async def connect(
    settings: Settings,
    warehouse: Warehouse,
    workspace: str,
    new: NewCredential,
    *,
    kind: ConnectionType = "bitbucket",
    name: str | None = None,
) -> StoredConnection:
    """Verifies the credential, then stores connection and credential together.

    Raises:
        VerificationFailed: nothing was stored.
    """
    failure = await verify(settings, workspace, new, kind)
    if failure is not None:
        raise VerificationFailed(failure)
    vault = Vault.of(settings)
    async with warehouse.transaction() as transaction:
        connection_id = await connections.store(transaction, workspace, kind, name or workspace, {})
        await connections.add_credential(transaction, vault, connection_id, new)
    found = await connections.find(warehouse, workspace, kind)
    if found is None:
        raise LookupError(workspace)
    return found


def usable(stored: StoredCredential | NewCredential, credential_id: int = 0) -> Credential:
    """A stored credential as the client sends it."""
    expires: date | None = stored.expiration_date
    identity = stored.id if isinstance(stored, StoredCredential) else credential_id
    return Credential(identity, stored.label, stored.type, stored.secret, stored.username, expires)


async def verify(
    settings: Settings,
    workspace: str,
    stored: StoredCredential | NewCredential,
    kind: ConnectionType = "bitbucket",
) -> Failure | None:
    """Asks for all that an import of this kind of connection needs; None when everything was given."""
    try:
        credential = usable(stored)
    except ValueError as error:
        return Failure("invalid_credentials", f"This cannot be a credential: {error}.", "")
    async with _client(settings, credential) as client:
        asked = endpoints.repositories(workspace)
        try:
            body = await client.get(asked.path, {"pagelen": 10, "sort": "-updated_on"})
        except BitbucketError as error:
            return _failure(settings, workspace, credential, asked, [error])
        found = [uuid for one in records(body, "values") if (uuid := text(one.get("uuid")))]
        if not found:
            reason = f"The credential is good, but it sees no repository in workspace {workspace}."
            return Failure("no_resources", reason, curl(settings, credential, asked))
        return await _verify_parts(
            settings, client, workspace, credential, kind=kind, repositories=found[:_REPOSITORIES_TO_TRY]
        )


async def _verify_parts(
    settings: Settings,
    client: BitbucketClient,
    workspace: str,
    credential: Credential,
    *,
    kind: ConnectionType,
    repositories: Sequence[str],
) -> Failure | None:
    refusals: list[tuple[Endpoint, BitbucketError]] = []
    members = endpoints.members(workspace)
    if error := await _refusal(client, members):
        refusals.append((members, error))
    parts = [endpoints.pipelines] if kind == "bitbucket_pipelines" else [endpoints.pull_requests, endpoints.pipelines]
    for part in parts:
        for repository in repositories:
            asked = part(workspace, repository)
            error = await _refusal(client, asked)
            # A repository may be closed to us, or have Pipelines off: only a missing scope speaks for the others.
            if error is None or isinstance(error, NotFound | Gone) or (isinstance(error, Forbidden) and error.required):
                break
        if error is not None and _counts(error):
            refusals.append((asked, error))
    if not refusals:
        return None
    return _failure(settings, workspace, credential, refusals[0][0], [error for _, error in refusals])


def _counts(error: BitbucketError) -> bool:
    return not isinstance(error, NotFound | Gone) and not (isinstance(error, Forbidden) and not error.required)


async def _refusal(client: BitbucketClient, asked: Endpoint) -> BitbucketError | None:
    try:
        await client.get(asked.path, {"pagelen": 1})
    except BitbucketError as error:
        return error
    return None


@asynccontextmanager
async def _client(settings: Settings, credential: Credential) -> AsyncIterator[BitbucketClient]:
    pool = CredentialPool([credential], MemoryLedger(settings.budget_window))
    async with BitbucketClient(settings.bitbucket_api_url, pool, retries=_IMPATIENT) as client:
        yield client


def _failure(
    settings: Settings, workspace: str, credential: Credential, asked: Endpoint, errors: Sequence[BitbucketError]
) -> Failure:
    command = curl(settings, credential, asked)
    first = errors[0]
    if isinstance(first, Unauthorized | CredentialsExhausted):
        how = "as a workspace access token (Bearer)" if credential.kind == "access_token" else "as an API token (Basic)"
        said = f" Bitbucket said: {first.message}" if first.message else ""
        return Failure("invalid_credentials", f"Bitbucket does not accept this credential {how}.{said}", command)
    missing = sorted({scope for error in errors if isinstance(error, Forbidden) for scope in error.missing})
    if missing:
        reason = f"The credential lacks the scope{'s' if len(missing) > 1 else ''} {', '.join(missing)}."
        return Failure("invalid_permissions", reason, command)
    if isinstance(first, Forbidden):
        reason = f"The credential may not read workspace {workspace}: {first.message or first}"
        return Failure("invalid_permissions", reason, command)
    if isinstance(first, NotFound | Gone):
        reason = (
            f"There is no workspace {workspace} that this credential can see. It is named by the first part of "
            f"its address: https://bitbucket.org/WORKSPACE/. Bitbucket said: {first.message or first}"
        )
        return Failure("no_resources", reason, command)
    return Failure(first.code or "unavailable", str(first), command)


def curl(settings: Settings, credential: Credential, asked: Endpoint) -> str:
    """A command that asks the same; YOUR_TOKEN stands for the secret."""
    query = {name: value for name, value in asked.params.items() if name != "fields"} | {"pagelen": 1}
    url = f"{settings.bitbucket_api_url}{asked.path}?{urlencode(query, doseq=True)}"
    if credential.kind == "access_token":
        return f"curl -H 'Authorization: Bearer YOUR_TOKEN' {shlex.quote(url)}"
    return f"curl -u {shlex.quote(f'{credential.username}:YOUR_TOKEN')} {shlex.quote(url)}"


def new_credential(
    secret: SecretStr, username: str | None = None, label: str | None = None, expires: date | None = None
) -> NewCredential:
    """A credential as people give it: an access token alone, or an API token with its account's e-mail address."""
    trimmed = SecretStr(secret.get_secret_value().strip())
    if username:
        return NewCredential(
            "api_token", label or f"API token of {username.strip()}", trimmed, username.strip(), expires
        )
    label = label or f"Access token …{trimmed.get_secret_value()[-4:]}"
    return NewCredential("access_token", label, trimmed, expiration_date=expires)
