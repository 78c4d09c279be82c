"""Queued and running runs of each workspace."""

from collections.abc import Iterable, Sequence

import dagster as dg

from dx_dagster.assets.placement import Placement
from dx_dagster.clock import HOST

PRIORITY_TAG = "dagster/priority"
# The run queue keeps slots free for refreshes by these tags, with the placement's prefix: see dagster.yaml.
WORKSPACE_TAG, KIND_TAG, BACKGROUND_TAG = "workspace", "kind", "background"
RECONCILE, SYNC, REFRESH = "reconcile", "sync", "refresh"
PARTITION_TAG = "dagster/partition"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def syncing_workspaces(placement: Placement, instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a queued or running sync.

    A queued nightly reconcile does not count: it may wait for hours, and yields to other runs.
    """
    return _workspaces(placement, (run for run in _unfinished(instance) if not _is_patient(placement, run)))


def started_syncs(placement: Placement, instance: dg.DagsterInstance) -> set[str]:
    """Workspaces, in lower case, with a sync that has left the queue, or was started by a command.

    It waits for the workspace's lock: a refresh leaves the workspace to it.
    """
    runs = (run for run in _unfinished(instance) if run.status != dg.DagsterRunStatus.QUEUED)
    return _workspaces(placement, runs)


def ages_of_refreshes(placement: Placement, instance: dg.DagsterInstance) -> list[float]:
    """Seconds since each queued or running refresh began; 0 for one that has not begun."""
    tags = {placement.tag(KIND_TAG): REFRESH}
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED, tags=tags))
    now = HOST.now().timestamp()
    return [now - one.start_time if one.start_time is not None else 0.0 for one in records]


def _unfinished(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))


def _workspaces(placement: Placement, runs: Iterable[dg.DagsterRun]) -> set[str]:
    kind = placement.tag(KIND_TAG)
    return {_workspace(placement, run).lower() for run in runs if run.tags.get(kind) != REFRESH} - {""}


def _workspace(placement: Placement, run: dg.DagsterRun) -> str:
    """The workspace that the run works on. In another project, partitions may be of something else."""
    if workspace := run.tags.get(placement.tag(WORKSPACE_TAG)):
        return workspace
    is_ours = (
        placement.component is None
        or run.job_name == placement.name("sync_workspace")
        or placement.are_ours(run.asset_selection or ())
    )
    return run.tags.get(PARTITION_TAG, "") if is_ours else ""


def _is_patient(placement: Placement, run: dg.DagsterRun) -> bool:
    return run.status == dg.DagsterRunStatus.QUEUED and run.tags.get(placement.tag(KIND_TAG)) == RECONCILE


def queued_syncs(placement: Placement, instance: dg.DagsterInstance) -> int:
    tags = {placement.tag(KIND_TAG): SYNC}
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags=tags))


def has_begun(instance: dg.DagsterInstance, run_key: str) -> bool:
    """Whether the run with this key has left the queue."""
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}))
    waits = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING}
    return any(run.status not in waits for run in runs)
