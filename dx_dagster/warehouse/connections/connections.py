"""Connections, as they are stored: found, made, disabled, removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from dx_dagster.warehouse.database import Transaction, Warehouse

ConnectionType = Literal["bitbucket", "bitbucket_pipelines", "jira_cloud"]


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
    sync_asked_at: datetime | None = None
    expected: dict[str, Any] = field(default_factory=dict)

    @property
    def standing(self) -> str:
        """`failing` where the last sync could read nothing; else the result of the last verification."""
        return "failing" if self.last_error is not None else self.state


class AlreadyConnectedError(ValueError):
    """The workspace has a connection of this type under another spelling of its name."""

    def __init__(self, given: str, kind: ConnectionType, stored: str) -> None:
        main = kind == "bitbucket"
        super().__init__(
            f"Workspace {given} has a connection {'' if main else f'of type {kind} '}already, under the name {stored}: "
            "Bitbucket does not distinguish upper and lower case in names of workspaces. To add a credential to it: "
            f"dx-dagster credentials add {stored}{'' if main else f' --type {kind}'}"
        )


# A name that somebody typed is compared as lower(workspace) = lower(%s), here, in `failing` and in
# `chosen_repositories`. All other tables have the connection's own spelling: see `_respell`.
_SELECT = SQL("""
    SELECT id, type, workspace, name, state, disabled_at, disabled_reason, last_synced_at, created_at, updated_at,
           settings, last_error, failing_since, sync_asked_at, expected
    FROM connections k WHERE {condition} AND deleted_at IS NULL ORDER BY workspace, type""")


async def find(warehouse: Warehouse, workspace: str, kind: ConnectionType = "bitbucket") -> StoredConnection | None:
    """The connection of a workspace, in any spelling; its own `workspace` is the key of the Dagster partition."""
    statement = _SELECT.format(condition=SQL("lower(workspace) = lower(%s) AND type = %s"))
    return await warehouse.fetch_one(StoredConnection, statement, [workspace, kind])


async def stored_name(warehouse: Warehouse, workspace: str) -> str:
    """The workspace's name as its connections spell it; as given where it has none."""
    row = await warehouse.row(
        "SELECT workspace FROM connections WHERE lower(workspace) = lower(%s) AND deleted_at IS NULL "
        "ORDER BY type <> 'bitbucket', id LIMIT 1",
        [workspace],
    )
    return str(row.workspace) if row else workspace


async def get(warehouse: Warehouse, connection_id: int) -> StoredConnection | None:
    """The connection with this id, unless it was removed."""
    return await warehouse.fetch_one(StoredConnection, _SELECT.format(condition=SQL("id = %s")), [connection_id])


async def all_connections(warehouse: Warehouse) -> list[StoredConnection]:
    """Every connection, by workspace and type."""
    return await warehouse.fetch(StoredConnection, _SELECT.format(condition=SQL("true")))


async def store(
    transaction: Transaction, workspace: str, kind: ConnectionType, name: str | None, settings: Mapping[str, Any]
) -> int:
    """Makes the connection, or renews an existing one, which keeps its name unless one is given; returns its id.

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
    """Spells the workspace in every table as its new connection does: most queries compare names exactly."""
    named = (
        *(("bitbucket_workspaces", "slug"), ("webhook_events", "workspace"), ("sync_steps", "workspace")),
        ("connections", "workspace"),
    )
    for table, column in named:
        await transaction.execute(
            SQL(
                "UPDATE {table} SET {column} = %(name)s "
                "WHERE lower({column}) = lower(%(name)s) AND {column} <> %(name)s"
            ).format(table=Identifier(table), column=Identifier(column)),
            {"name": workspace},
        )


async def record_sync(
    warehouse: Warehouse,
    workspace: str,
    kinds: Sequence[ConnectionType] = ("bitbucket", "bitbucket_pipelines"),
) -> None:
    """Records that the workspace was imported just now over its connections of these types.

    `workspace` may be a partition that somebody added by hand, in whatever case.
    """
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET last_synced_at = now() WHERE lower(workspace) = lower(%s) AND type = ANY(%s) "
            "AND deleted_at IS NULL AND disabled_at IS NULL",
            [workspace, list(kinds)],
        )


async def expect(warehouse: Warehouse, connection_id: int, expected: Mapping[str, Any]) -> None:
    """Stores what the first import is expected to take."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET expected = %s WHERE id = %s", [Jsonb(dict(expected)), connection_id]
        )


async def ask_for_sync(warehouse: Warehouse, connection_id: int) -> None:
    """Asks the daemon for a sync; asking twice is asking once."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET sync_asked_at = COALESCE(sync_asked_at, now()) "
            "WHERE id = %s AND deleted_at IS NULL AND disabled_at IS NULL",
            [connection_id],
        )


@dataclass(frozen=True)
class AskedSync:
    """A sync that a person asked for."""

    workspace: str
    asked_at: datetime


async def asked_syncs(warehouse: Warehouse) -> list[AskedSync]:
    """Syncs that no run was started for yet, the first first."""
    return await warehouse.fetch(
        AskedSync,
        "SELECT workspace, sync_asked_at AS asked_at FROM connections WHERE type = 'bitbucket' "
        "AND sync_asked_at IS NOT NULL AND deleted_at IS NULL AND disabled_at IS NULL ORDER BY sync_asked_at, id",
    )


async def sync_began(warehouse: Warehouse, asked: AskedSync) -> None:
    """Records that a run does what a person asked for."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET sync_asked_at = NULL WHERE workspace = %s AND sync_asked_at = %s",
            [asked.workspace, asked.asked_at],
        )


async def of_credential(warehouse: Warehouse, credential_id: int, workspace: str) -> StoredConnection | None:
    """The connection of the workspace, of whichever type, that has this credential."""
    condition = SQL(
        "lower(workspace) = lower(%s) AND EXISTS ("
        "SELECT FROM credentials c WHERE c.connection_id = k.id AND c.id = %s AND c.deleted_at IS NULL)"
    )
    return await warehouse.fetch_one(StoredConnection, _SELECT.format(condition=condition), [workspace, credential_id])


async def disable(warehouse: Warehouse, connection_id: int, reason: str) -> None:
    """Stops requests with its credentials, which stay as they are. A disabled connection keeps its reason."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET disabled_at = now(), disabled_reason = %s, updated_at = now() "
            "WHERE id = %s AND disabled_at IS NULL AND deleted_at IS NULL",
            [reason, connection_id],
        )


async def enable(warehouse: Warehouse, connection_id: int) -> None:
    """Lets requests be sent with its credentials again."""
    async with warehouse.transaction() as transaction:
        await transaction.execute(
            "UPDATE connections SET disabled_at = NULL, disabled_reason = NULL, updated_at = now() "
            "WHERE id = %s AND disabled_at IS NOT NULL AND deleted_at IS NULL",
            [connection_id],
        )


async def remove(warehouse: Warehouse, connection_id: int) -> bool:
    """Marks the connection as deleted and clears its secrets, those of webhooks too; returns whether there was one."""
    async with warehouse.transaction() as transaction:
        found = await transaction.execute(
            "UPDATE connections SET deleted_at = now(), updated_at = now() WHERE id = %s AND deleted_at IS NULL",
            [connection_id],
        )
        await transaction.execute(
            "UPDATE credentials SET deleted_at = now(), secret = '', updated_at = clock_timestamp() "
            "WHERE connection_id = %s AND deleted_at IS NULL",
            [connection_id],
        )
        await transaction.execute("DELETE FROM webhook_secrets WHERE connection_id = %s", [connection_id])
    return bool(found)
