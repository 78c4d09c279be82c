"""Queued and running runs of each workspace."""

from collections.abc import Sequence

import dagster as dg

WORKSPACE_TAG = "dx/workspace"
PRIORITY_TAG = "dagster/priority"
# The run queue keeps slots free for refreshes by these tags: see dagster.yaml.
KIND_TAG = "dx/kind"
RECONCILE, SYNC, REFRESH = "reconcile", "sync", "refresh"
BACKGROUND_TAG = "dx/background"
PARTITION_TAG = "dagster/partition"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def busy_workspaces(instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a queued or running run of any kind.

    A queued nightly reconcile does not count: it may wait for hours, and yields to other runs.
    """
    return {_workspace(run).lower() for run in _unfinished(instance) if not _is_patient(run)} - {""}


def syncing_workspaces(instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a queued or running run that is not a refresh.

    Under constant changes a refresh never ends by itself. A due sync is queued beside it, and the refresh yields.
    """
    runs = [run for run in _unfinished(instance) if not _is_patient(run) and not _is_refresh(run)]
    return {_workspace(run).lower() for run in runs} - {""}


def is_waited_for(instance: dg.DagsterInstance, workspace: str) -> bool:
    """Whether a sync of the workspace, from the queue or a command, waits for a refresh to end."""
    return workspace.lower() in syncing_workspaces(instance)


def _is_refresh(run: dg.DagsterRun) -> bool:
    return run.tags.get(KIND_TAG) == REFRESH or run.job_name == "refresh_workspace"


def _unfinished(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))


def _workspace(run: dg.DagsterRun) -> str:
    return run.tags.get(WORKSPACE_TAG) or run.tags.get(PARTITION_TAG) or ""


def _is_patient(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(KIND_TAG) == RECONCILE


def queued_syncs(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags={KIND_TAG: SYNC}))


def has_begun(instance: dg.DagsterInstance, run_key: str) -> bool:
    """Whether the run with this key has left the queue."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}))
    waits = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING}
    return any(run.status not in waits for run in runs)
