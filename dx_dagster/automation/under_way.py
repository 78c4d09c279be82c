"""What Dagster is doing already."""

import dagster as dg

WORKSPACE_TAG = "dx/workspace"
PRIORITY_TAG = "dagster/priority"
# By these the run queue keeps slots free for refreshes: see dagster.yaml.
KIND_TAG = "dx/kind"
RECONCILE, SYNC, REFRESH = "reconcile", "sync", "refresh"
BACKGROUND_TAG = "dx/background"
_PARTITION_TAG = "dagster/partition"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def busy_workspaces(instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a run that is queued or running, whatever it does and whoever started it.

    A nightly reconcile that is only queued does not count: it may be so for hours, and yields to what is urgent.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    return {_workspace(run).lower() for run in runs if not _is_patient(run)} - {""}


def _workspace(run: dg.DagsterRun) -> str:
    return run.tags.get(WORKSPACE_TAG) or run.tags.get(_PARTITION_TAG) or ""


def _is_patient(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(KIND_TAG) == RECONCILE


def queued_syncs(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags={KIND_TAG: SYNC}))
