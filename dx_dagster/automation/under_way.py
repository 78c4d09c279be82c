"""What Dagster is doing already."""

from collections.abc import Sequence

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
    return {_workspace(run).lower() for run in _unfinished(instance) if not _is_patient(run)} - {""}


def syncing_workspaces(instance: dg.DagsterInstance) -> set[str]:
    """Those of them whose run is no refresh.

    Where changes never cease, neither do refreshes. A sync that is due is queued beside one, which makes room for it.
    """
    runs = [run for run in _unfinished(instance) if not _is_patient(run) and not _is_refresh(run)]
    return {_workspace(run).lower() for run in runs} - {""}


def is_waited_for(instance: dg.DagsterInstance, workspace: str) -> bool:
    """Whether a sync of the workspace waits for a refresh to end: queued, or started by a command."""
    return workspace.lower() in syncing_workspaces(instance)


def _is_refresh(run: dg.DagsterRun) -> bool:
    return run.tags.get(KIND_TAG) == REFRESH or run.job_name == "refresh_workspace"


def _unfinished(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))


def _workspace(run: dg.DagsterRun) -> str:
    return run.tags.get(WORKSPACE_TAG) or run.tags.get(_PARTITION_TAG) or ""


def _is_patient(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(KIND_TAG) == RECONCILE


def queued_syncs(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags={KIND_TAG: SYNC}))
