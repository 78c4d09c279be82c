"""Webhook secrets: each connection's, and the hooks that sign with them."""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from dx_dagster.warehouse.connections import keys
from dx_dagster.warehouse.connections.vault import Vault, VaultError
from dx_dagster.warehouse.database import Transaction, Warehouse

# Bitbucket repeats a failed delivery within minutes, with the same signature.
GRACE = timedelta(hours=1)
_BYTES = 32  # 43 characters; Bitbucket takes up to 128


@dataclass(frozen=True)
class Sender:
    """A connection that may send deliveries.

    Attributes:
        secrets: any of them may sign.
        hook: uuid of the workspace's hook, as a sync last saw it.
        hooks: uuids of the hooks that were made for it.
        readable: whether the vault decrypted all of its secrets.
    """

    connection_id: int
    workspace: str
    source_id: str | None
    secrets: tuple[SecretStr, ...] = field(repr=False)
    hooks: tuple[str, ...]
    readable: bool
    hook: str | None = None


# One row for each connection. A connection without secrets is a known sender, whose deliveries fail verification.
SENDERS = """
    SELECT c.id, c.workspace, w.source_id, b.hook_uuid AS hook,
           array_agg(s.id ORDER BY s.id DESC) FILTER (WHERE s.id IS NOT NULL) AS ids,
           array_agg(s.secret ORDER BY s.id DESC) FILTER (WHERE s.id IS NOT NULL) AS locked,
           array_agg(array_to_string(s.hook_uuids, ' ')) FILTER (WHERE s.id IS NOT NULL) AS hooks
    FROM connections c
    LEFT JOIN bitbucket_workspaces w ON w.slug = c.workspace
    LEFT JOIN webhook_beliefs b ON b.connection_id = c.id
    LEFT JOIN webhook_secrets s ON s.connection_id = c.id AND (s.expires_at IS NULL OR s.expires_at > now())
    WHERE c.type = 'bitbucket' AND c.deleted_at IS NULL
    GROUP BY c.id, w.source_id, b.hook_uuid"""


def sender(vault: Vault, row: Any) -> Sender:
    """A row of `SENDERS` with its secrets decrypted."""
    opened: list[SecretStr] = []
    readable = True
    for number, locked in zip(row.ids or (), row.locked or (), strict=True):
        try:
            opened.append(vault.unlock(locked, _row_name(number)))
        except VaultError:
            readable = False
    hooks = tuple(uuid for uuids in row.hooks or () for uuid in uuids.split())
    return Sender(row.id, row.workspace, row.source_id, tuple(opened), hooks, readable, row.hook)


async def current(warehouse: Warehouse, vault: Vault, connection_id: int) -> tuple[int, SecretStr] | None:
    """The secret for new hooks, with its number.

    Raises:
        VaultError: the keys do not open it.
    """
    row = await warehouse.row(
        "SELECT id, secret FROM webhook_secrets WHERE connection_id = %s AND expires_at IS NULL "
        "ORDER BY id DESC LIMIT 1",
        [connection_id],
    )
    return (int(row.id), vault.unlock(row.secret, _row_name(row.id))) if row else None


async def add(
    warehouse: Warehouse, vault: Vault, connection_id: int, secret: SecretStr | None = None
) -> tuple[int, SecretStr]:
    """Adds a secret, random unless given. Earlier secrets stay valid until `retire`.

    Raises:
        VaultError: the keys open nothing of what is stored.
    """
    chosen = secret or SecretStr(secrets.token_urlsafe(_BYTES))
    async with warehouse.transaction() as transaction:
        await keys.require_ours(transaction, vault)
        row = await transaction.row("SELECT nextval(pg_get_serial_sequence('webhook_secrets', 'id'))::int AS id")
        await transaction.execute(
            "INSERT INTO webhook_secrets (id, connection_id, secret) OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s)",
            [row.id, connection_id, vault.lock(chosen, _row_name(row.id))],
        )
    return int(row.id), chosen


async def given_to(warehouse: Warehouse, number: int, hook_uuid: str) -> None:
    """Records that a hook signs with this secret."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE webhook_secrets SET hook_uuids = hook_uuids || %(hook)s::text "
            "WHERE id = %(number)s AND NOT %(hook)s = ANY(hook_uuids)",
            {"number": number, "hook": hook_uuid},
        )


async def exists(warehouse: Warehouse, connection_id: int) -> bool:
    """Whether the connection has a secret that signs deliveries."""
    row = await warehouse.row(
        "SELECT EXISTS (SELECT FROM webhook_secrets WHERE connection_id = %s AND expires_at IS NULL) AS found",
        [connection_id],
    )
    return bool(row.found)


async def hooks(warehouse: Warehouse, connection_id: int) -> frozenset[str]:
    """Uuids of all hooks that this installation has made, including deleted ones."""
    rows = await warehouse.rows(
        "SELECT DISTINCT unnest(hook_uuids) AS uuid FROM webhook_secrets WHERE connection_id = %s", [connection_id]
    )
    return frozenset(row.uuid for row in rows)


async def retire(warehouse: Warehouse, connection_id: int, *, but: int | None = None) -> None:
    """Lets the secrets of a connection, or all but one, expire after `GRACE`: deliveries under way still verify."""
    async with warehouse.transaction() as transaction:
        await _retire(transaction, connection_id, but)


async def _retire(transaction: Transaction, connection_id: int, but: int | None) -> None:
    await transaction.execute(
        "UPDATE webhook_secrets SET expires_at = now() + %s "
        "WHERE connection_id = %s AND expires_at IS NULL AND id IS DISTINCT FROM %s",
        [GRACE, connection_id, but],
    )


def _row_name(number: int) -> str:
    return f"webhook secret {number}"
