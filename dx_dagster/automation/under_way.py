"""Queued and running runs of each workspace."""

from collections.abc import Iterable, Sequence

import dagster as dg

from dx_dagster.clock import HOST

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


def syncing_workspaces(instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a queued or running sync.

    A queued nightly reconcile does not count: it may wait for hours, and yields to other runs.
    """
    return _workspaces(run for run in _unfinished(instance) if not _is_patient(run))


def started_syncs(instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a sync that has left the queue, or was started by a command.

    It waits for the workspace's lock: a refresh leaves the workspace to it.
    """
    return _workspaces(run for run in _unfinished(instance) if run.status != dg.DagsterRunStatus.QUEUED)


def ages_of_refreshes(instance: dg.DagsterInstance) -> list[float]:
    """Seconds since each queued or running refresh began; 0 for one that has not begun."""
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED, tags={KIND_TAG: REFRESH}))
    now = HOST.now().timestamp()
    return [now - one.start_time if one.start_time is not None else 0.0 for one in records]


def _unfinished(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))


def _workspaces(runs: Iterable[dg.DagsterRun]) -> set[str]:
    """A refresh names no workspace."""
    return {(run.tags.get(WORKSPACE_TAG) or run.tags.get(PARTITION_TAG) or "").lower() for run in runs} - {""}


def _is_patient(run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(KIND_TAG) == RECONCILE


def queued_syncs(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags={KIND_TAG: SYNC}))


def has_begun(instance: dg.DagsterInstance, run_key: str) -> bool:
    """Whether the run with this key has left the queue."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}))
    waits = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING}
    return any(run.status not in waits for run in runs)
