"""Partitions: one for each connected workspace. The key is the connection's spelling of the slug."""

from collections.abc import Iterable

import dagster as dg

from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import repositories

WORKSPACES = dg.DynamicPartitionsDefinition(name="workspaces")


def registered(instance: dg.DagsterInstance, partitions: dg.DynamicPartitionsDefinition = WORKSPACES) -> set[str]:
    return set(instance.get_dynamic_partitions(str(partitions.name)))


def register(
    instance: dg.DagsterInstance,
    workspaces: Iterable[str],
    partitions: dg.DynamicPartitionsDefinition = WORKSPACES,
) -> None:
    """Adds missing partitions: a workspace may be connected without Dagster, and its UI can delete partitions."""
    missing = sorted(set(workspaces) - registered(instance, partitions))
    if missing:
        instance.add_dynamic_partitions(str(partitions.name), missing)


def remove(instance: dg.DagsterInstance, workspace: str, partitions: dg.DynamicPartitionsDefinition) -> None:
    """Removes the partition of a workspace that was never imported: no asset shows it as failed any longer."""
    instance.delete_dynamic_partition(str(partitions.name), workspace)


async def workspace_of(warehouse: Warehouse, partition: str) -> tuple[str, str | None]:
    """The workspace's slug as it is stored, from which the partition may differ in case; its id once it is imported."""
    slug = await connections.stored_name(warehouse, partition)
    async with warehouse.transaction(read_only=True) as transaction:
        return slug, await repositories.workspace_id(transaction, slug)
