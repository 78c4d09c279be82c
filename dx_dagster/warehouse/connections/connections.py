"""Connections and their credentials, as they are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb
from pydantic import SecretStr

from dx_dagster.clock import HOST
from dx_dagster.warehouse.connections import keys
from dx_dagster.warehouse.connections.vault import Vault
from dx_dagster.warehouse.database import Transaction, Warehouse

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
    created_at: datetime
    updated_at: datetime
    settings: dict[str, Any] = field(default_factory=dict)
    last_error: str | None = None
    failing_since: datetime | None = None

    @property
    def standing(self) -> str:
        """`failing` where the last sync could read nothing; else how the last verification ended."""
        return "failing" if self.last_error is not None else self.state


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
    """What may be shown of a credential, and how its last verification ended: `code` is None when it was good."""

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
    """A credential that was verified and is about to be stored; `named` when its label was chosen, not made up."""

    type: CredentialType
    label: str
    secret: SecretStr
    username: str | None = None
    expiration_date: date | None = None
    named: bool = False


class AlreadyConnectedError(ValueError):
    """The workspace has a connection of this type under another spelling of its name."""

    def __init__(self, given: str, kind: ConnectionType, stored: str) -> None:
        main = kind == "bitbucket"
        super().__init__(
            f"Workspace {given} has a connection {'' if main else f'of type {kind} '}already, under the name {stored}: "
            "Bitbucket does not distinguish upper and lower case in names of workspaces. To add a credential to it: "
            f"dx-dagster credentials add {stored}{'' if main else f' --type {kind}'}"
        )


# The one comparison of a name that somebody typed. The tables hold the spelling of the connection: see `_respell`.
NAMED = "lower(workspace) = lower(%s)"
_LONG_ENOUGH_TO_HINT = 12  # characters of a secret, of which the last four may be shown
_STORED = (
    "id, connection_id, type, label, settings ->> 'username' AS username, secret, hint, expiration_date, disabled_at, "
    "disabled_reason, updated_at::text AS version"
)
_USABLE = "disabled_at IS NULL AND (expiration_date IS NULL OR expiration_date >= current_date)"
_IN_SERVICE = (
    "EXISTS (SELECT FROM connections k WHERE k.id = connection_id AND k.disabled_at IS NULL AND k.deleted_at IS NULL)"
)
_CONNECTION = (
    "id, type, workspace, name, state, disabled_at, disabled_reason, last_synced_at, created_at, updated_at, settings, "
    "last_error, failing_since"
)


async def find(warehouse: Warehouse, workspace: str, kind: ConnectionType = "bitbucket") -> StoredConnection | None:
    """The connection of a workspace, in whatever case its name is given; its own `workspace` is the partition's key."""
    row = await warehouse.row(
        f"SELECT {_CONNECTION} FROM connections "  # noqa: S608 - names of our own columns
        f"WHERE {NAMED} AND type = %s AND deleted_at IS NULL",
        [workspace, kind],
    )
    return StoredConnection(*row) if row else None


async def stored_name(warehouse: Warehouse, workspace: str) -> str:
    """The workspace's name as its connections have it; as given where there are none."""
    row = await warehouse.row(
        f"SELECT workspace FROM connections WHERE {NAMED} AND deleted_at IS NULL "  # noqa: S608 - a constant
        "ORDER BY type <> 'bitbucket', id LIMIT 1",
        [workspace],
    )
    return str(row.workspace) if row else workspace


async def get(warehouse: Warehouse, connection_id: int) -> StoredConnection | None:
    row = await warehouse.row(
        f"SELECT {_CONNECTION} FROM connections WHERE id = %s AND deleted_at IS NULL",  # noqa: S608
        [connection_id],
    )
    return StoredConnection(*row) if row else None


async def all_connections(warehouse: Warehouse) -> list[StoredConnection]:
    """Every connection, by workspace and type."""
    rows = await warehouse.rows(
        f"SELECT {_CONNECTION} FROM connections WHERE deleted_at IS NULL ORDER BY workspace, type"  # noqa: S608
    )
    return [StoredConnection(*row) for row in rows]


async def store(
    transaction: Transaction, workspace: str, kind: ConnectionType, name: str | None, settings: Mapping[str, Any]
) -> int:
    """Makes the connection, or renews the one that is there, whose name stays unless one is given; returns its id.

    Raises:
        AlreadyConnectedError: the one that is there spells the workspace differently.
    """
    row = await transaction.row(
        """INSERT INTO connections (workspace, type, name, state, settings)
           VALUES (%(workspace)s, %(kind)s, COALESCE(%(name)s, %(workspace)s), 'verified', %(settings)s)
           ON CONFLICT (lower(workspace), type) WHERE deleted_at IS NULL
           DO UPDATE SET state = 'verified', name = COALESCE(%(name)s, connections.name), disabled_at = NULL,
                         disabled_reason = NULL, settings = connections.settings || EXCLUDED.settings,
                         updated_at = now()
           RETURNING id, workspace""",
        {"workspace": workspace, "kind": kind, "name": name or None, "settings": Jsonb(dict(settings))},
    )
    if row.workspace != workspace:
        raise AlreadyConnectedError(workspace, kind, row.workspace)
    if kind == "bitbucket":
        await _respell(transaction, workspace)
    return int(row.id)


async def _respell(transaction: Transaction, workspace: str) -> None:
    """Spells the workspace everywhere as its new connection does: all queries but `NAMED` compare names exactly."""
    named = (("bitbucket_workspaces", "slug"), ("webhook_events", "workspace"), ("connections", "workspace"))
    for table, column in named:
        await transaction.execute(
            f"UPDATE {table} SET {column} = %(name)s "  # noqa: S608 - constants
            f"WHERE lower({column}) = lower(%(name)s) AND {column} <> %(name)s",
            {"name": workspace},
        )


async def add_credential(transaction: Transaction, vault: Vault, connection_id: int, new: NewCredential) -> int | None:
    """Stores the credential and returns its id; where its secret is in the pool already, in the row that is there.

    None when the connection is no longer there.

    Raises:
        VaultError: the keys open nothing of what is stored.
    """
    # One addition at a time, or two of the same secret would not see each other.
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
    """The number stays, and with it the books of its requests; so do label and day of expiry unless they are given."""
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
    """Who has the same secret: it is in a pool once, or its budget would count twice."""
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


async def replace_credential(
    transaction: Transaction, vault: Vault, seen: StoredCredential, new: NewCredential, *, enable: bool
) -> bool:
    """Writes `new` over the row that was read as `seen`; False where it is not as it was then."""
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


async def credentials(
    warehouse: Warehouse, vault: Vault, connection_id: int, *, enabled: bool = True
) -> list[StoredCredential]:
    """The credentials of a connection with their secrets; only those that may be used unless told otherwise.

    Raises:
        VaultError: the keys do not open them.
    """
    rows = await warehouse.rows(
        f"""SELECT {_STORED} FROM credentials
            WHERE connection_id = %s AND deleted_at IS NULL AND (NOT %s OR ({_USABLE} AND {_IN_SERVICE}))
            ORDER BY id""",  # noqa: S608
        [connection_id, enabled],
    )
    return [_opened(vault, row) for row in rows]


async def credential(
    warehouse: Warehouse, vault: Vault, connection_id: int, credential_id: int
) -> StoredCredential | None:
    """One credential with its secret, whether it may be used or not.

    Raises:
        VaultError: the keys do not open it.
    """
    row = await warehouse.row(
        f"SELECT {_STORED} FROM credentials "  # noqa: S608
        "WHERE connection_id = %s AND id = %s AND deleted_at IS NULL",
        [connection_id, credential_id],
    )
    return _opened(vault, row) if row else None


def _opened(vault: Vault, row: Any) -> StoredCredential:
    return StoredCredential(**row._asdict() | {"secret": vault.unlock(row.secret, _row_name(row.id))})


async def usable_ids(warehouse: Warehouse, connection_id: int) -> set[int]:
    """Which credentials may send requests at this moment."""
    rows = await warehouse.rows(
        f"""SELECT id FROM credentials
            WHERE connection_id = %s AND deleted_at IS NULL AND {_USABLE} AND {_IN_SERVICE}""",  # noqa: S608
        [connection_id],
    )
    return {row.id for row in rows}


async def shown(
    warehouse: Warehouse, connection_id: int, *, credential_id: int | None = None, deleted: bool = False
) -> list[ShownCredential]:
    """What may be shown of the credentials of a connection, or of one of them; the removed ones when asked for."""
    rows = await warehouse.rows(
        """SELECT c.id, connection_id, type, label, settings ->> 'username' AS username, hint, expiration_date,
                  disabled_at, disabled_reason, created_at, deleted_at, checked_at, code, reason, curl
           FROM credentials c LEFT JOIN credential_checks k ON k.credential_id = c.id
           WHERE connection_id = %(connection)s AND (%(deleted)s OR deleted_at IS NULL)
             AND (%(one)s::int IS NULL OR c.id = %(one)s) ORDER BY c.id""",
        {"connection": connection_id, "deleted": deleted, "one": credential_id},
    )
    return [ShownCredential(*row) for row in rows]


async def record_check(
    transaction: Transaction, credential_id: int, code: str | None, reason: str | None, curl: str | None
) -> None:
    """How a verification ended; `code` is None when the credential was good."""
    await transaction.execute(
        """INSERT INTO credential_checks (credential_id, code, reason, curl) VALUES (%s, %s, %s, %s)
           ON CONFLICT (credential_id) DO UPDATE
           SET checked_at = now(), code = EXCLUDED.code, reason = EXCLUDED.reason, curl = EXCLUDED.curl""",
        [credential_id, code, reason, curl],
    )


async def settle_state(transaction: Transaction, connection_id: int) -> None:
    """A connection is verified as long as one of its usable credentials was not found bad, else failed."""
    await transaction.execute(
        f"""UPDATE connections k SET state = found.state, updated_at = now()
            FROM (SELECT CASE WHEN EXISTS (
                    SELECT FROM credentials c LEFT JOIN credential_checks x ON x.credential_id = c.id
                    WHERE c.connection_id = %(id)s AND deleted_at IS NULL AND {_USABLE}
                      AND (x.code IS NULL OR x.code = 'unavailable')
                  ) THEN 'verified' ELSE 'failed' END AS state) found
            WHERE k.id = %(id)s AND k.state <> found.state""",  # noqa: S608
        {"id": connection_id},
    )


async def disable_credential(warehouse: Warehouse, credential_id: int, reason: str) -> bool:
    """Takes the credential out of its pool; returns whether it was in."""
    async with warehouse.transaction() as transaction:
        return bool(
            await transaction.execute(
                "UPDATE credentials SET disabled_at = now(), disabled_reason = %s, updated_at = clock_timestamp() "
                "WHERE id = %s AND disabled_at IS NULL AND deleted_at IS NULL",
                [reason, credential_id],
            )
        )


async def record_sync(
    warehouse: Warehouse,
    workspace: str,
    kinds: Sequence[ConnectionType] = ("bitbucket", "bitbucket_pipelines"),
) -> None:
    """Notes that the workspace was imported just now over its connections of these types.

    `workspace` may be a partition that somebody added by hand, in whatever case.
    """
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET last_synced_at = now() "  # noqa: S608 - a constant
            f"WHERE {NAMED} AND type = ANY(%s) AND deleted_at IS NULL AND disabled_at IS NULL",
            [workspace, list(kinds)],
        )


async def enable_credential(transaction: Transaction, seen: StoredCredential) -> None:
    """Puts a credential that proved good back into its pool, unless somebody has changed it since it was read."""
    await transaction.execute(
        "UPDATE credentials SET disabled_at = NULL, disabled_reason = NULL, updated_at = clock_timestamp() "
        "WHERE id = %s AND disabled_at IS NOT NULL AND deleted_at IS NULL AND updated_at::text = %s",
        [seen.id, seen.version],
    )


async def remove_credential(warehouse: Warehouse, credential_id: int) -> bool:
    """Hides the credential and forgets its secret; whether it was there."""
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


async def of_credential(warehouse: Warehouse, credential_id: int, workspace: str) -> StoredConnection | None:
    """The connection of the workspace, of whichever type, that has this credential."""
    row = await warehouse.row(
        f"SELECT {_CONNECTION} FROM connections k WHERE {NAMED} AND deleted_at IS NULL "  # noqa: S608
        "AND EXISTS (SELECT FROM credentials c WHERE c.connection_id = k.id AND c.id = %s AND c.deleted_at IS NULL)",
        [workspace, credential_id],
    )
    return StoredConnection(*row) if row else None
