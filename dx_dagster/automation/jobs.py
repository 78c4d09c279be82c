"""The job that imports one workspace."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from dx_dagster.assets.catalog import Assets
from dx_dagster.assets.derived import builds_of
from dx_dagster.assets.placement import Placement
from dx_dagster.assets.steps import key_of, of_a_sync
from dx_dagster.resources import resources

SyncJob = UnresolvedAssetJobDefinition  # what `define_asset_job` returns


def run_tags(placement: Placement) -> dict[str, str]:
    """Tags of all runs of a job in another project, in place of lines in its dagster.yaml."""
    return {} if placement.component is None else {"dagster/retry_on_asset_or_op_failure": "false"}


def executor(placement: Placement) -> dg.ExecutorDefinition | None:
    """The executor of a job in another project; None leaves it to the project. Our own code location sets its own."""
    return dg.in_process_executor if placement.component is not None and placement.in_process else None


def sync_workspace(placement: Placement) -> SyncJob:
    steps = [step for step in of_a_sync(placement.settings()) if step in placement.steps]
    imported = [placement.key(key_of(step)) for step in steps]
    derived = [placement.key(build.key) for build in builds_of(placement)]
    return dg.define_asset_job(
        placement.name("sync_workspace"),
        # Without checks, whose results they yield all the same: Dagster stores three events for each one it selects.
        selection=dg.AssetSelection.assets(*imported, *derived).without_checks(),
        description="Imports what changed in one workspace, and brings the derived tables up to date.",
        tags=run_tags(placement),
        executor_def=executor(placement),
    )


def with_resources(placement: Placement, assets: Assets, job: SyncJob) -> dg.Definitions:
    """The definitions that a sync needs. The project's executor stays."""
    return dg.Definitions(
        assets=assets,
        jobs=[job],
        resources={placement.name(name): one for name, one in resources(placement.settings).items()},
    )
