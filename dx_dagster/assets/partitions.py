"""One partition for each connected workspace, named by its slug as the connection spells it."""

from collections.abc import Iterable

import dagster as dg

WORKSPACES = dg.DynamicPartitionsDefinition(name="workspaces")


def registered(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions(str(WORKSPACES.name)))


def register(instance: dg.DagsterInstance, workspaces: Iterable[str]) -> None:
    """Adds the partitions that Dagster lacks: a workspace may be connected without it, and its UI can delete them."""
    missing = sorted(set(workspaces) - registered(instance))
    if missing:
        instance.add_dynamic_partitions(str(WORKSPACES.name), missing)
