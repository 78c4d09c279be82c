"""Credentials, as they are stored: added, replaced, in or out of the pool, removed."""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from psycopg.sql import SQL
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from dx_dagster.clock import HOST
from dx_dagster.warehouse.connections import keys
from dx_dagster.warehouse.connections.vault import Vault, VaultError
from dx_dagster.warehouse.database import Transaction, Warehouse

CredentialType = Literal["access_token", "api_token"]


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
    version: str = field(default="", repr=False)


@dataclass(frozen=True)
class ShownCredential:
    """A credential without its secret, and the result of its last verification; `code` is None where it is good."""

    id: int
    connection_id: int
    type: CredentialType
    label: str
    username: str | None
    hint: str
    expiration_date: date | None
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime
    deleted_at: datetime | None
    checked_at: datetime | None
    code: str | None
    reason: str | None
    curl: str | None

    @property
    def expired(self) -> bool:
        return self.expiration_date is not None and self.expiration_date < HOST.now().date()


@dataclass(frozen=True)
class NewCredential:
    """A verified credential that is about to be stored; `named` where somebody chose its label."""

    type: CredentialType
    label: str
    secret: SecretStr
    username: str | None = None
    expiration_date: date | None = None
    named: bool = False


_LONG_ENOUGH_TO_HINT = 12  # characters of a secret, of which the last four may be shown
_USABLE = SQL("disabled_at IS NULL AND (expiration_date IS NULL OR expiration_date >= current_date)")
_IN_SERVICE = SQL(
    "EXISTS (SELECT FROM connections k WHERE k.id = connection_id AND k.disabled_at IS NULL AND k.deleted_at IS NULL)"
)


async def add(transaction: Transaction, vault: Vault, connection_id: int, new: NewCredential) -> int | None:
    """Stores the credential and returns its id. A secret that the pool has already stays in its row.

    Returns None where the connection was removed.

    Raises:
        VaultError: the keys open nothing of what is stored.
    """
    # The lock lets one addition in at a time: two with the same secret would not see each other.
    connection = await transaction.row(
        "SELECT id FROM connections WHERE id = %s AND deleted_at IS NULL FOR UPDATE", [connection_id]
    )
    if connection is None:
        return None
    await keys.require_ours(transaction, vault)
    twins = await _twins(transaction, vault, connection_id, new.secret)
    if twins:
        await _renew(transaction, vault, twins[0], new)
        return twins[0]
    row = await transaction.row("SELECT nextval(pg_get_serial_sequence('credentials', 'id'))::int AS id")
    await transaction.execute(
        """INSERT INTO credentials (id, connection_id, type, label, settings, secret, hint, expiration_date)
           OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        [row.id, connection_id, *_columns(vault, row.id, new)],
    )
    return int(row.id)


async def _renew(transaction: Transaction, vault: Vault, credential_id: int, new: NewCredential) -> None:
    """Keeps the id, and with it the budget; also the label and the day of expiry where `new` has none of its own."""
    kind, *rest = _columns(vault, credential_id, new)
    await transaction.execute(
        """UPDATE credentials
           SET type = %s, label = CASE WHEN %s THEN %s ELSE label END, settings = %s, secret = %s, hint = %s,
               expiration_date = COALESCE(%s, expiration_date), disabled_at = NULL, disabled_reason = NULL,
               updated_at = clock_timestamp()
           WHERE id = %s""",
        [kind, new.named, *rest, credential_id],
    )


async def _twins(
    transaction: Transaction, vault: Vault, connection_id: int, secret: SecretStr, but: int | None = None
) -> list[int]:
    """Ids of credentials with the same secret: twice in a pool, its budget would count twice."""
    rows = await transaction.rows(
        "SELECT id, secret FROM credentials WHERE connection_id = %s AND hint = %s AND deleted_at IS NULL "
        "AND id IS DISTINCT FROM %s ORDER BY id FOR UPDATE",
        [connection_id, _hint(secret.get_secret_value()), but],
    )
    wanted = secret.get_secret_value()
    return [row.id for row in rows if vault.unlock(row.secret, _row_name(row.id)).get_secret_value() == wanted]


def _hint(secret: str) -> str:
    return secret[-4:] if len(secret) > _LONG_ENOUGH_TO_HINT else ""


def _columns(vault: Vault, credential_id: int, new: NewCredential) -> list[Any]:
    """Type, label, settings, secret, hint and expiration_date of a row."""
    settings = {"username": new.username} if new.username else {}
    locked = vault.lock(new.secret, _row_name(credential_id))
    return [new.type, new.label, Jsonb(settings), locked, _hint(new.secret.get_secret_value()), new.expiration_date]


async def replace(
    transaction: Transaction, vault: Vault, seen: StoredCredential, new: NewCredential, *, enable: bool
) -> bool:
    """Writes `new` over the row that was read as `seen`; returns False where the row has changed since."""
    await transaction.execute("SELECT FROM connections WHERE id = %s FOR UPDATE", [seen.connection_id])
    written = bool(
        await transaction.execute(
            """UPDATE credentials
               SET type = %s, label = %s, settings = %s, secret = %s, hint = %s, expiration_date = %s,
                   disabled_at = CASE WHEN %s THEN NULL ELSE disabled_at END,
                   disabled_reason = CASE WHEN %s THEN NULL ELSE disabled_reason END, updated_at = clock_timestamp()
               WHERE id = %s AND deleted_at IS NULL AND updated_at::text = %s""",
            [*_columns(vault, seen.id, new), enable, enable, seen.id, seen.version],
        )
    )
    if written and new.secret != seen.secret:
        for twin in await _twins(transaction, vault, seen.connection_id, new.secret, but=seen.id):
            await _delete(transaction, twin)
    return written


def _row_name(credential_id: int) -> str:
    return f"credential {credential_id}"


_SELECT = SQL("""
    SELECT id, connection_id, type, label, settings ->> 'username' AS username, secret, hint, expiration_date,
           disabled_at, disabled_reason, updated_at::text AS version
    FROM credentials WHERE connection_id = %s AND deleted_at IS NULL AND {is_meant} ORDER BY id""")


async def all_of(
    warehouse: Warehouse, vault: Vault, connection_id: int, *, enabled: bool = True
) -> list[StoredCredential]:
    """The credentials of a connection with their secrets; with `enabled`, only those that can be used.

    Raises:
        VaultError: the keys do not open them; with `enabled`, none of them.
    """
    is_meant = (
        SQL("{usable} AND {in_service}").format(usable=_USABLE, in_service=_IN_SERVICE) if enabled else SQL("true")
    )
    rows = await warehouse.rows(_SELECT.format(is_meant=is_meant), [connection_id])
    opened: list[StoredCredential] = []
    closed: VaultError | None = None
    for row in rows:
        try:
            opened.append(_opened(vault, row))
        except VaultError as error:
            if not enabled:
                raise
            closed = error
    if closed is not None and not opened:
        raise closed
    return opened


async def get(warehouse: Warehouse, vault: Vault, connection_id: int, credential_id: int) -> StoredCredential | None:
    """One credential with its secret, whether it may be used or not.

    Raises:
        VaultError: the keys do not open it.
    """
    row = await warehouse.row(_SELECT.format(is_meant=SQL("id = %s")), [connection_id, credential_id])
    return _opened(vault, row) if row else None


def _opened(vault: Vault, row: Any) -> StoredCredential:
    return StoredCredential(**row._asdict() | {"secret": vault.unlock(row.secret, _row_name(row.id))})


async def usable_ids(warehouse: Warehouse, connection_id: int) -> set[int]:
    """Ids of the credentials that may send requests at this moment."""
    rows = await warehouse.rows(
        SQL("""
            SELECT id FROM credentials
            WHERE connection_id = %s AND deleted_at IS NULL AND {usable} AND {in_service}""").format(
            usable=_USABLE, in_service=_IN_SERVICE
        ),
        [connection_id],
    )
    return {row.id for row in rows}


async def shown(
    warehouse: Warehouse, connection_id: int, *, credential_id: int | None = None, deleted: bool = False
) -> list[ShownCredential]:
    """The credentials of a connection, or one of them, without their secrets; with `deleted`, removed ones too."""
    return await warehouse.fetch(
        ShownCredential,
        """SELECT c.id, connection_id, type, label, settings ->> 'username' AS username, hint, expiration_date,
                  disabled_at, disabled_reason, created_at, deleted_at, checked_at, code, reason, curl
           FROM credentials c LEFT JOIN credential_checks k ON k.credential_id = c.id
           WHERE connection_id = %(connection)s AND (%(deleted)s OR deleted_at IS NULL)
             AND (%(one)s::int IS NULL OR c.id = %(one)s) ORDER BY c.id""",
        {"connection": connection_id, "deleted": deleted, "one": credential_id},
    )


async def record_check(
    transaction: Transaction, credential_id: int, code: str | None, reason: str | None, curl: str | None
) -> None:
    """Records the result of a verification; `code` is None where the credential is good."""
    await transaction.execute(
        """INSERT INTO credential_checks (credential_id, code, reason, curl) VALUES (%s, %s, %s, %s)
           ON CONFLICT (credential_id) DO UPDATE
           SET checked_at = now(), code = EXCLUDED.code, reason = EXCLUDED.reason, curl = EXCLUDED.curl""",
        [credential_id, code, reason, curl],
    )


async def settle_connection(transaction: Transaction, connection_id: int) -> None:
    """Sets the connection's state: `verified` while one of its usable credentials was not found bad, else `failed`."""
    await transaction.execute(
        SQL("""
            UPDATE connections k SET state = found.state, updated_at = now()
            FROM (SELECT CASE WHEN EXISTS (
                    SELECT FROM credentials c LEFT JOIN credential_checks x ON x.credential_id = c.id
                    WHERE c.connection_id = %(id)s AND deleted_at IS NULL AND {usable}
                      AND (x.code IS NULL OR x.code = 'unavailable')
                  ) THEN 'verified' ELSE 'failed' END AS state) found
            WHERE k.id = %(id)s AND k.state <> found.state""").format(usable=_USABLE),
        {"id": connection_id},
    )


async def disable(warehouse: Warehouse, credential_id: int, reason: str) -> bool:
    """Takes the credential out of its pool; returns whether it was in the pool."""
    async with warehouse.transaction() as transaction:
        return bool(
            await transaction.execute(
                "UPDATE credentials SET disabled_at = now(), disabled_reason = %s, updated_at = clock_timestamp() "
                "WHERE id = %s AND disabled_at IS NULL AND deleted_at IS NULL",
                [reason, credential_id],
            )
        )


async def enable(transaction: Transaction, seen: StoredCredential) -> None:
    """Puts a credential that proved good back into its pool, unless it has changed since it was read."""
    await transaction.execute(
        "UPDATE credentials SET disabled_at = NULL, disabled_reason = NULL, updated_at = clock_timestamp() "
        "WHERE id = %s AND disabled_at IS NOT NULL AND deleted_at IS NULL AND updated_at::text = %s",
        [seen.id, seen.version],
    )


async def remove(warehouse: Warehouse, credential_id: int) -> bool:
    """Marks the credential as deleted and clears its secret; returns whether there was one."""
    async with warehouse.transaction() as transaction:
        return await _delete(transaction, credential_id)


async def _delete(transaction: Transaction, credential_id: int) -> bool:
    return bool(
        await transaction.execute(
            "UPDATE credentials SET deleted_at = now(), secret = '', updated_at = clock_timestamp() "
            "WHERE id = %s AND deleted_at IS NULL",
            [credential_id],
        )
    )
