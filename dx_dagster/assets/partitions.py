"""Partitions: one for each connected workspace. The key is the connection's spelling of the slug."""

from collections.abc import Iterable

import dagster as dg

WORKSPACES = dg.DynamicPartitionsDefinition(name="workspaces")


def registered(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions(str(WORKSPACES.name)))


def register(instance: dg.DagsterInstance, workspaces: Iterable[str]) -> None:
    """Adds missing partitions: a workspace may be connected without Dagster, and its UI can delete partitions."""
    missing = sorted(set(workspaces) - registered(instance))
    if missing:
        instance.add_dynamic_partitions(str(WORKSPACES.name), missing)


def remove(instance: dg.DagsterInstance, workspace: str) -> None:
    """Removes the partition of a workspace that was never imported: no asset shows it as failed any longer."""
    instance.delete_dynamic_partition(str(WORKSPACES.name), workspace)
