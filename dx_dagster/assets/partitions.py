"""Partitions: one for each connected workspace. The key is the connection's spelling of the slug."""

from collections.abc import Iterable

import dagster as dg

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
