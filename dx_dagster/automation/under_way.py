"""What Dagster is doing already."""

import dagster as dg

from dx_dagster.assets.partitions import WORKSPACES

WORKSPACE_TAG = "dx/workspace"
PRIORITY_TAG = "dagster/priority"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def busy_workspaces(instance: dg.DagsterInstance) -> set[str]:
    """Workspaces with a run that is queued or running, whatever it does."""
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    return {run.tags[WORKSPACE_TAG] for run in runs if WORKSPACE_TAG in run.tags}


def registered(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_dynamic_partitions(str(WORKSPACES.name)))
