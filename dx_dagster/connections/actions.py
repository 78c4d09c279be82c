"""What the command line, the API and the pages do with connections and credentials.

A credential is verified before it is stored. A failed verification stores nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pydantic import SecretStr

from dx_dagster.connections.input import Fields, credential_of, new_credential, usable
from dx_dagster.connections.verification import Failure, Target, Verdict, VerificationFailed, Verifier
from dx_dagster.connections.workspace_names import GivenError
from dx_dagster.settings import Settings
from dx_dagster.warehouse import idempotency
from dx_dagster.warehouse.connections import connections, credentials, keys, rekeying, vault
from dx_dagster.warehouse.connections.connections import AlreadyConnectedError, ConnectionType, StoredConnection
from dx_dagster.warehouse.connections.credentials import NewCredential, ShownCredential, StoredCredential
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.idempotency import IdempotencyKey
from dx_dagster.warehouse.webhooks import inbox

__all__ = ["AlreadyConnectedError", "Failure", "VerificationFailed", "connect", "new_credential", "usable"]

_CHANGES_AT_ONCE = 3


class CredentialNotFoundError(LookupError):
    """The connection has no credential with this number."""


class ConnectionNotFoundError(LookupError):
    """The connection does not exist, or was removed."""


async def connect(
    settings: Settings,
    warehouse: Warehouse,
    workspace: str,
    new: NewCredential,
    *,
    kind: ConnectionType = "bitbucket",
    name: str | None = None,
    jira_url: str | None = None,
) -> StoredConnection:
    """Verifies the credential, then stores connection and credential together.

    Raises:
        AlreadyConnectedError: the workspace is connected under another spelling. No request was sent.
        VerificationFailed: nothing was stored.
    """
    there = await connections.find(warehouse, workspace, kind)
    if there is not None and there.workspace != workspace:
        raise AlreadyConnectedError(workspace, kind, there.workspace)
    if kind != "bitbucket":
        workspace = await connections.stored_name(warehouse, workspace)
    verifier = Verifier(settings, warehouse, Target.of(settings, kind, workspace, jira_url))
    verdict = await verifier.require_good(new)
    vault, known = Vault.of(settings), {"jira_url": jira_url} if jira_url else {}
    async with warehouse.transaction() as transaction:
        connection_id = await connections.store(transaction, workspace, kind, name, known)
        added = await _store(transaction, vault, connection_id, new)
    await verifier.book_first(new, added, verdict)
    found = await connections.get(warehouse, connection_id)
    if found is None:
        raise ConnectionNotFoundError(workspace)
    return found


async def add(
    settings: Settings,
    warehouse: Warehouse,
    connection: StoredConnection,
    new: NewCredential,
    key: IdempotencyKey | None = None,
) -> ShownCredential:
    """Verifies another credential, then stores it, with the request's key.

    Raises:
        VerificationFailed: nothing was stored.
        ConnectionNotFoundError: the connection was removed meanwhile.
    """
    verifier = Verifier(settings, warehouse, target_of(settings, connection))
    verdict = await verifier.require_good(new)
    async with warehouse.transaction() as transaction:
        added = await _store(transaction, Vault.of(settings), connection.id, new)
        if key is not None:
            await idempotency.settle(transaction, key, added)
    await verifier.book_first(new, added, verdict)
    # Another process may have removed it again by now.
    return await show(warehouse, connection, added, deleted=True)


async def _store(transaction: Transaction, vault: Vault, connection_id: int, new: NewCredential) -> int:
    added = await credentials.add(transaction, vault, connection_id, new)
    if added is None:
        raise ConnectionNotFoundError(connection_id)
    await _found_good(transaction, connection_id, added)
    return added


async def _found_good(transaction: Transaction, connection_id: int, credential_id: int) -> None:
    """Records that the credential is good, and makes deliveries due that waited for one."""
    await credentials.record_check(transaction, credential_id, None, None, None)
    await credentials.settle_connection(transaction, connection_id)
    await inbox.release(transaction, connection_id)


async def add_fields(
    settings: Settings, warehouse: Warehouse, connection: StoredConnection, fields: Fields
) -> ShownCredential:
    """As `add`, for a credential in the field names of the API and the forms."""
    return await add(settings, warehouse, connection, described(connection.type, fields))


async def add_once(
    settings: Settings, warehouse: Warehouse, connection: StoredConnection, fields: Fields, key: str
) -> ShownCredential:
    """As `add_fields`, for a request that its client may repeat with the same key within a day.

    Raises:
        ReusedError: the key belongs to other fields.
    """
    whole = IdempotencyKey(connection.id, key, fields.digest())
    known = await idempotency.claim(warehouse, whole)
    if known is not None:
        return await show(warehouse, connection, known, deleted=True)
    try:
        return await add(settings, warehouse, connection, described(connection.type, fields), whole)
    except VerificationFailed:
        await idempotency.release(warehouse, whole)
        raise


def described(kind: ConnectionType, fields: Fields, before: StoredCredential | None = None) -> NewCredential:
    """The credential that the fields describe.

    Raises:
        VerificationFailed: the fields describe no credential.
    """
    try:
        return credential_of(kind, fields, before)
    except GivenError as error:
        raise VerificationFailed(Failure("invalid_credentials", str(error))) from None


@dataclass(frozen=True)
class Changes:
    """Changes of a credential. Missing and empty fields stay; `expires` with no date removes the expiry."""

    label: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    expires: bool = False
    expiration_date: date | None = None


async def update(
    settings: Settings, warehouse: Warehouse, connection: StoredConnection, credential_id: int, changes: Changes
) -> ShownCredential:
    """Verifies the changed credential, then stores it. A new secret or user name enables it again.

    Raises:
        CredentialNotFoundError: the credential does not exist.
        VerificationFailed: the row is unchanged.
    """
    for _ in range(_CHANGES_AT_ONCE):
        before = await credentials.get(warehouse, Vault.of(settings), connection.id, credential_id)
        if before is None:
            raise CredentialNotFoundError(credential_id)
        expires = changes.expiration_date if changes.expires else before.expiration_date
        fields = Fields(changes.label, changes.settings, changes.secrets, expires)
        after = described(connection.type, fields, before)
        await Verifier(settings, warehouse, target_of(settings, connection)).require_good(after, credential_id)
        enable = after.username != before.username or after.secret != before.secret
        async with warehouse.transaction() as transaction:
            if await credentials.replace(transaction, Vault.of(settings), before, after, enable=enable):
                await _found_good(transaction, connection.id, credential_id)
                break
        # Another process has changed the row since it was read: start again from its new state.
    else:
        reason = "Other requests keep changing this credential at the same time."
        raise VerificationFailed(Failure("unavailable", reason, hint="Try again."))
    return await show(warehouse, connection, credential_id, deleted=True)


@dataclass(frozen=True)
class Checked:
    """A stored credential and the verdict of its repeated verification."""

    credential: StoredCredential
    verdict: Verdict


async def check(
    settings: Settings, warehouse: Warehouse, connection: StoredConnection, credential_id: int | None = None
) -> list[Checked]:
    """Verifies the stored credentials again, or one of them, and enables the good ones.

    Raises:
        CredentialNotFoundError: no credential has this number.
    """
    stored = await credentials.all_of(warehouse, Vault.of(settings), connection.id, enabled=False)
    chosen = [one for one in stored if credential_id in {None, one.id}]
    if credential_id is not None and not chosen:
        raise CredentialNotFoundError(credential_id)
    done = []
    for one in chosen:
        verdict = await Verifier(settings, warehouse, target_of(settings, connection)).verify(one, one.id)
        failure = verdict.failure
        async with warehouse.transaction() as transaction:
            if failure is None:
                await credentials.enable(transaction, one)
                await _found_good(transaction, connection.id, one.id)
            else:
                await credentials.record_check(transaction, one.id, failure.code, failure.sentence, failure.curl)
                await credentials.settle_connection(transaction, connection.id)
        done.append(Checked(one, verdict))
    return done


async def disable(warehouse: Warehouse, connection: StoredConnection, credential_id: int, reason: str) -> None:
    """Disables a credential; `check` enables a good one again.

    Raises:
        CredentialNotFoundError: the credential does not exist.
    """
    await show(warehouse, connection, credential_id)
    await credentials.disable(warehouse, credential_id, reason.strip() or "disabled by hand")
    async with warehouse.transaction() as transaction:
        await credentials.settle_connection(transaction, connection.id)


async def disable_refused(warehouse: Warehouse, connection: StoredConnection, credential_id: int, reason: str) -> None:
    """Disables a credential that the service refused during an import, and records the reason."""
    if credential_id not in await credentials.usable_ids(warehouse, connection.id):
        return
    await credentials.disable(warehouse, credential_id, reason)
    async with warehouse.transaction() as transaction:
        await credentials.record_check(transaction, credential_id, "invalid_credentials", reason, None)
        await credentials.settle_connection(transaction, connection.id)


async def remove(warehouse: Warehouse, connection: StoredConnection, credential_id: int) -> None:
    """Marks the credential as deleted and erases its secret.

    Raises:
        CredentialNotFoundError: the credential does not exist.
    """
    await show(warehouse, connection, credential_id)
    if not await credentials.remove(warehouse, credential_id):
        raise CredentialNotFoundError(credential_id)
    async with warehouse.transaction() as transaction:
        await credentials.settle_connection(transaction, connection.id)


async def show(
    warehouse: Warehouse, connection: StoredConnection, credential_id: int, *, deleted: bool = False
) -> ShownCredential:
    """The credential without its secret; a removed one only with `deleted`.

    Raises:
        CredentialNotFoundError: the credential does not exist.
    """
    found = await credentials.shown(warehouse, connection.id, credential_id=credential_id, deleted=deleted)
    if not found:
        raise CredentialNotFoundError(credential_id)
    return found[0]


async def disable_connection(warehouse: Warehouse, connection: StoredConnection, reason: str) -> None:
    """Stops all requests over the connection, running imports included, until it is enabled again."""
    await connections.disable(warehouse, connection.id, reason.strip() or "disabled by hand")


async def enable_connection(settings: Settings, warehouse: Warehouse, connection: StoredConnection) -> list[Checked]:
    """Enables the connection, verifies its credentials, and enables the good ones."""
    await connections.enable(warehouse, connection.id)
    return await check(settings, warehouse, connection)


async def remove_connection(warehouse: Warehouse, connection: StoredConnection) -> None:
    """Marks the connection as deleted and erases its secrets. Imported rows stay.

    Raises:
        ConnectionNotFoundError: it was removed already.
    """
    if not await connections.remove(warehouse, connection.id):
        raise ConnectionNotFoundError(connection.id)


async def pool_for_pipelines(warehouse: Warehouse, workspace: str) -> ConnectionType:
    """The connection that fetches pipelines: `bitbucket_pipelines` where it has a usable credential."""
    own = await connections.find(warehouse, workspace, "bitbucket_pipelines")
    has_some = own is not None and await credentials.usable_ids(warehouse, own.id)
    return "bitbucket_pipelines" if has_some else "bitbucket"


async def rekey(settings: Settings, warehouse: Warehouse) -> tuple[int, bool]:
    """Encrypts every stored secret with the first key; returns their number and whether the key is new.

    Raises:
        VaultError: no key decrypts a secret. Nothing was changed.
    """
    if Vault.of(settings).is_empty:
        async with warehouse.transaction() as transaction:
            await keys.require_ours(transaction, Vault.of(settings))  # before a new key takes the place of a lost one
    renewed = vault.renew(settings)
    done = await rekeying.rekey(warehouse, Vault.of(settings))
    vault.forget_old_keys(settings)
    return done, renewed


def target_of(settings: Settings, connection: StoredConnection) -> Target:
    return Target.of(settings, connection.type, connection.workspace, connection.settings.get("jira_url"))
