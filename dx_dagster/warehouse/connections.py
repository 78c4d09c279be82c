"""Connections and their credentials, as they are stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb
from pydantic import SecretStr

from dx_dagster.warehouse.database import Transaction, Warehouse
from dx_dagster.warehouse.vault import Vault

ConnectionType = Literal["bitbucket", "bitbucket_pipelines", "jira_cloud"]
CredentialType = Literal["access_token", "api_token"]


@dataclass(frozen=True)
class StoredConnection:
    id: int
    type: ConnectionType
    workspace: str
    name: str
    state: str
    disabled_at: datetime | None
    disabled_reason: str | None
    last_synced_at: datetime | None


@dataclass(frozen=True)
class StoredCredential:
    """A credential with its secret, which its repr does not show."""

    id: int
    connection_id: int
    type: CredentialType
    label: str
    username: str | None
    secret: SecretStr
    hint: str
    expiration_date: date | None
    disabled_at: datetime | None
    disabled_reason: str | None


@dataclass(frozen=True)
class NewCredential:
    """A credential that was verified and is about to be stored."""

    type: CredentialType
    label: str
    secret: SecretStr
    username: str | None = None
    expiration_date: date | None = None


_LONG_ENOUGH_TO_HINT = 12  # characters of a secret, of which the last four may be shown
_CONNECTION = "id, type, workspace, name, state, disabled_at, disabled_reason, last_synced_at"


async def find(warehouse: Warehouse, workspace: str, kind: ConnectionType = "bitbucket") -> StoredConnection | None:
    row = await warehouse.row(
        f"SELECT {_CONNECTION} FROM connections "  # noqa: S608 - names of our own columns
        "WHERE workspace = %s AND type = %s AND deleted_at IS NULL",
        [workspace, kind],
    )
    return StoredConnection(*row) if row else None


async def all_connections(warehouse: Warehouse) -> list[StoredConnection]:
    """Every connection, by workspace and type."""
    rows = await warehouse.rows(
        f"SELECT {_CONNECTION} FROM connections WHERE deleted_at IS NULL ORDER BY workspace, type"  # noqa: S608
    )
    return [StoredConnection(*row) for row in rows]


async def store(
    transaction: Transaction, workspace: str, kind: ConnectionType, name: str, settings: Mapping[str, Any]
) -> int:
    """Makes the connection, or renews the one that is there; returns its id."""
    row = await transaction.row(
        """INSERT INTO connections (workspace, type, name, state, settings)
           VALUES (%s, %s, %s, 'verified', %s)
           ON CONFLICT (workspace, type) WHERE deleted_at IS NULL
           DO UPDATE SET state = 'verified', name = EXCLUDED.name, disabled_at = NULL, disabled_reason = NULL,
                         settings = connections.settings || EXCLUDED.settings, updated_at = now()
           RETURNING id""",
        [workspace, kind, name, Jsonb(dict(settings))],
    )
    return int(row.id)


async def add_credential(transaction: Transaction, vault: Vault, connection_id: int, new: NewCredential) -> int:
    """Stores the credential and returns its id; one with the same secret is replaced, and enabled again."""
    secret, settings = new.secret.get_secret_value(), {"username": new.username} if new.username else {}
    hint = secret[-4:] if len(secret) > _LONG_ENOUGH_TO_HINT else ""
    for row in await transaction.rows(
        "SELECT id, secret FROM credentials WHERE connection_id = %s AND hint = %s AND deleted_at IS NULL FOR UPDATE",
        [connection_id, hint],
    ):
        if vault.unlock(row.secret, _row_name(row.id)).get_secret_value() == secret:
            await transaction.execute("UPDATE credentials SET deleted_at = now(), secret = '' WHERE id = %s", [row.id])
    row = await transaction.row("SELECT nextval(pg_get_serial_sequence('credentials', 'id'))::int AS id")
    await transaction.execute(
        """INSERT INTO credentials (id, connection_id, type, label, settings, secret, hint, expiration_date)
           OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        [
            *(row.id, connection_id, new.type, new.label, Jsonb(settings)),
            *(vault.lock(new.secret, _row_name(row.id)), hint, new.expiration_date),
        ],
    )
    return int(row.id)


def _row_name(credential_id: int) -> str:
    return f"credential {credential_id}"


async def credentials(
    warehouse: Warehouse, vault: Vault, connection_id: int, *, enabled: bool = True
) -> list[StoredCredential]:
    """The credentials of a connection with their secrets; only those that may be used unless told otherwise.

    Raises:
        VaultError: the keys do not open them.
    """
    rows = await warehouse.rows(
        """SELECT id, connection_id, type, label, settings ->> 'username' AS username, secret, hint, expiration_date,
                  disabled_at, disabled_reason
           FROM credentials
           WHERE connection_id = %s AND deleted_at IS NULL
             AND (NOT %s OR (disabled_at IS NULL AND (expiration_date IS NULL OR expiration_date >= current_date)))
           ORDER BY id""",
        [connection_id, enabled],
    )
    return [StoredCredential(**row._asdict() | {"secret": vault.unlock(row.secret, _row_name(row.id))}) for row in rows]


async def disable_credential(warehouse: Warehouse, credential_id: int, reason: str) -> bool:
    """Takes the credential out of its pool; returns whether it was in."""
    async with warehouse.transaction() as transaction:
        return bool(
            await transaction.execute(
                "UPDATE credentials SET disabled_at = now(), disabled_reason = %s, updated_at = now() "
                "WHERE id = %s AND disabled_at IS NULL AND deleted_at IS NULL",
                [reason, credential_id],
            )
        )


async def record_sync(warehouse: Warehouse, workspace: str) -> None:
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET last_synced_at = now() WHERE workspace = %s AND deleted_at IS NULL", [workspace]
        )


async def enable_credential(warehouse: Warehouse, credential_id: int) -> None:
    """Puts a credential that proved good back into its pool."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE credentials SET disabled_at = NULL, disabled_reason = NULL, updated_at = now() "
            "WHERE id = %s AND disabled_at IS NOT NULL AND deleted_at IS NULL",
            [credential_id],
        )


async def remove_credential(warehouse: Warehouse, credential_id: int) -> None:
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE credentials SET deleted_at = now(), secret = '' WHERE id = %s AND deleted_at IS NULL",
            [credential_id],
        )


async def belongs(warehouse: Warehouse, credential_id: int, workspace: str) -> bool:
    """Whether the workspace has this credential, in whichever of its connections."""
    row = await warehouse.row(
        "SELECT FROM credentials c JOIN connections k ON k.id = c.connection_id "
        "WHERE c.id = %s AND k.workspace = %s AND c.deleted_at IS NULL AND k.deleted_at IS NULL",
        [credential_id, workspace],
    )
    return row is not None


async def health(warehouse: Warehouse, connection_id: int) -> list[dict[str, Any]]:
    """What may be shown of the credentials of a connection."""
    rows = await warehouse.rows(
        """SELECT id, type, label, hint, expiration_date::text, disabled_at::text, disabled_reason
           FROM credentials WHERE connection_id = %s AND deleted_at IS NULL ORDER BY id""",
        [connection_id],
    )
    return [row._asdict() for row in rows]
