"""One database, one set of keys: checks that the keys of this installation decrypt the stored secrets.

An installation with other keys could read no credential and no webhook secret, and would add its own beside them. The
first stored secret decides which keys belong to the database.
"""

from collections.abc import Sequence
from typing import Any

from psycopg.errors import UndefinedTable

from dx_dagster.settings import Settings
from dx_dagster.warehouse.connecting import APPLICATION, connect
from dx_dagster.warehouse.connections.vault import Vault, VaultError
from dx_dagster.warehouse.database import Transaction

_CONNECT_SECONDS = 5
_STORED = """
    SELECT 'credential ' || c.id AS name, c.secret, k.workspace
    FROM credentials c JOIN connections k ON k.id = c.connection_id
    WHERE c.secret <> '' AND c.deleted_at IS NULL AND k.deleted_at IS NULL
    UNION ALL
    SELECT 'webhook secret ' || s.id, s.secret, k.workspace
    FROM webhook_secrets s JOIN connections k ON k.id = s.connection_id
    WHERE (s.expires_at IS NULL OR s.expires_at > now()) AND k.deleted_at IS NULL
    ORDER BY 3, 1"""
_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('dx-dagster first secret', 0))"


def check(url: str, settings: Settings) -> str | None:
    """A warning that names the secrets that no key decrypts; None where the keys decrypt all of them.

    Raises:
        VaultError: there are secrets, and the keys decrypt none.
    """
    with connect(url, connect_timeout=_CONNECT_SECONDS, application_name=APPLICATION) as connection:
        try:
            stored = connection.execute(_STORED).fetchall()
        except UndefinedTable:
            return None  # no table, no secret
    if not stored:
        return None
    vault = Vault.of(settings)
    closed = _closed(vault, stored)
    if len(closed) == len(stored):
        raise VaultError(_refusal(len(stored), vault))
    if not closed:
        return None
    names = ", ".join(f"{name} of workspace {workspace}" for name, workspace in closed)
    return (
        f"None of the keys of {vault.source} opens these of the {len(stored)} stored secrets: {names}. Put the key "
        "that they were stored with behind the others there, or add the credentials again and remove these."
    )


async def require_ours(transaction: Transaction, vault: Vault) -> None:
    """Call it before the transaction stores a secret; other transactions that store one wait for its end.

    Raises:
        VaultError: there are secrets, and the keys decrypt none.
    """
    await transaction.execute(_TURN)
    stored = await transaction.rows(_STORED)
    if stored and len(_closed(vault, stored)) == len(stored):
        raise VaultError(_refusal(len(stored), vault))


def _closed(vault: Vault, stored: Sequence[Any]) -> list[tuple[str, str]]:
    """Name and workspace of the secrets that no key decrypts."""
    return [(name, workspace) for name, secret, workspace in stored if not vault.opens(secret, name)]


def _refusal(count: int, vault: Vault) -> str:
    lost = "If the keys are lost: dx-dagster connections remove WORKSPACE, and connect it again."
    if vault.is_empty:
        return (
            f"There are no keys for the stored secrets, {count} in all: {vault.source} does not exist. Bring that "
            f"file back, or set DX_SECRET_KEYS to its content. {lost}"
        )
    return (
        f"The keys of {vault.source} open none of the stored secrets, {count} in all: another installation stored "
        f"them. Set DX_SECRET_KEYS to the keys of that one, or DX_DATABASE_URL to another database. {lost}"
    )
