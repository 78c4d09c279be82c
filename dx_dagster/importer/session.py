"""Opens what an import of one workspace holds while it runs: the lock, the credential pool and the client."""

import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio

from dx_dagster.bitbucket import BitbucketClient, Credential, CredentialPool, Retries, endpoints, sentence
from dx_dagster.clock import HOST
from dx_dagster.connections.actions import disable_refused, usable
from dx_dagster.connections.health import WARNED_BEFORE_EXPIRY
from dx_dagster.connections.request_counting import counting
from dx_dagster.connections.revocation import following
from dx_dagster.importer.workspace import Listener
from dx_dagster.settings import Settings
from dx_dagster.warehouse.budgets import SharedLedger
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.connections.connections import ConnectionType, StoredConnection
from dx_dagster.warehouse.connections.credentials import StoredCredential
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Warehouse

_SECONDS_BETWEEN_TRIES = 1.0
_SHORT_REST = 5.0  # seconds


class BusyError(Exception):
    """Another process imports the workspace."""


class NotConnectedError(Exception):
    """The workspace has no connection, or its connection cannot be used."""


class NoCredentialError(NotConnectedError):
    """The workspace's connection has no usable credential."""


async def connection_in_service(
    warehouse: Warehouse, workspace: str, kind: ConnectionType = "bitbucket"
) -> StoredConnection:
    """The workspace's enabled connection.

    Raises:
        NotConnectedError: there is no connection, or it is disabled.
    """
    connection = await connections.find(warehouse, workspace, kind)
    if connection is None:
        raise NotConnectedError(
            f"Workspace {workspace} is not connected. Set BITBUCKET_TOKEN, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN, "
            f"and run: dx-dagster connect {workspace}"
        )
    if connection.disabled_at is not None:
        raise NotConnectedError(
            f"The connection of workspace {connection.workspace} is disabled: "
            f"{sentence(connection.disabled_reason or 'no reason given')} Enable it on the connections page, or with: "
            f"dx-dagster connections enable {connection.workspace}"
        )
    return connection


async def open_pool(
    settings: Settings,
    warehouse: Warehouse,
    listener: Listener,
    connection: StoredConnection,
    *,
    disables: bool = True,
) -> CredentialPool:
    """Opens a pool of the connection's enabled credentials.

    `disables`: a credential that Bitbucket refuses is disabled for all, and not for this pool alone.
    It leaves out, with a warning, a credential that no key decrypts.

    Raises:
        NoCredentialError: no credential is left in it.
        VaultError: the keys decrypt none of the credentials.
    """
    workspace = connection.workspace
    stored = await credentials.all_of(warehouse, Vault.of(settings), connection.id)
    if not stored:
        raise NoCredentialError(
            f"invalid_credentials: no credential of workspace {workspace} can be used: all are disabled, expired or "
            f"removed. Add one with: dx-dagster credentials add {workspace}"
        )

    if closed := await credentials.usable_ids(warehouse, connection.id) - {one.id for one in stored}:
        listener.warning(
            f"No key decrypts the secret of credential {', '.join(map(str, sorted(closed)))} of workspace "
            f"{workspace}, which is not used: see DX_SECRET_KEYS in docs/configuration.md, or add it again."
        )

    async def disable(credential: Credential, reason: str) -> None:
        await disable_refused(warehouse, connection, credential.id, reason)
        listener.warning(f"credential {credential.label!r} is disabled: {reason}")

    def waiting(seconds: float, reason: str) -> None:
        until = HOST.now().astimezone() + timedelta(seconds=seconds)
        listener.warning(f"waiting {math.ceil(seconds)} s, until {until:%H:%M:%S}: {reason}")

    _warn_of_expiry(stored, listener, workspace)
    ledger = SharedLedger(warehouse, settings.budget_window)
    return CredentialPool([usable(one) for one in stored], ledger, disable if disables else None, waiting)


def _warn_of_expiry(stored: Iterable[StoredCredential], listener: Listener, workspace: str) -> None:
    today = HOST.now().astimezone().date()
    for one in stored:
        if one.expiration_date and one.expiration_date <= today + WARNED_BEFORE_EXPIRY:
            listener.warning(
                f"credential {one.label!r} expires on {one.expiration_date}: make a new one in Bitbucket, then run: "
                f"dx-dagster credentials add {workspace}"
            )


@asynccontextmanager
async def open_client(
    settings: Settings,
    warehouse: Warehouse,
    pool: CredentialPool,
    connection: StoredConnection,
    *,
    wait: bool = True,
) -> AsyncIterator[BitbucketClient]:
    """Opens a client for the workspace; when it closes, the pool returns its reserved requests.

    A credential that is removed or disabled in the meantime is no longer used. Without `wait`, a request fails as
    `RateLimited` while the budgets are used up.
    """
    probe = f"{endpoints.repositories(connection.workspace).path}?pagelen={endpoints.LEAST_PAGE}"
    client = BitbucketClient(
        settings.bitbucket_api_url,
        pool,
        probe_path=probe,
        max_in_flight=settings.max_in_flight,
        retries=None if wait else Retries(patience=_patience(settings)),
        clock=warehouse.clock,
    )
    try:
        async with client, following(warehouse, pool, connection.id), counting(warehouse, client):
            yield client
    finally:
        await pool.close()


def _patience(settings: Settings) -> float:
    """Seconds that a request waits for others in flight, or after a 429, where it does not wait for a budget."""
    return min(_SHORT_REST, settings.budget_window / 30)


@asynccontextmanager
async def locked(warehouse: Warehouse, workspace: str, listener: Listener, *, wait: bool = True) -> AsyncIterator[None]:
    """Holds the workspace's lock; waits for it while another process imports the workspace.

    Raises:
        BusyError: the lock is taken, and `wait` is false.
    """
    warned = False
    while True:
        async with warehouse.importing(workspace) as is_free:
            if is_free:
                yield
                return
        if not wait:
            raise BusyError(f"Another process is importing workspace {workspace}; try again when it has ended.")
        if not warned:
            listener.warning(f"another process is importing workspace {workspace}; waiting for it to end")
            warned = True
        await anyio.sleep(_SECONDS_BETWEEN_TRIES)
