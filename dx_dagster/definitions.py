"""What Dagster loads."""

import dagster as dg

from dx_dagster.assets.bitbucket import ASSETS
from dx_dagster.automation.jobs import sync_workspace
from dx_dagster.automation.refreshing import refresh_workspace
from dx_dagster.automation.schedules import SCHEDULES
from dx_dagster.automation.sensors import SENSORS
from dx_dagster.resources import BitbucketResource, CredentialPoolResource, WarehouseResource

defs = dg.Definitions(
    assets=ASSETS,
    jobs=[sync_workspace, refresh_workspace],
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources={
        "warehouse": WarehouseResource(),
        "credential_pool": CredentialPoolResource(),
        "bitbucket": BitbucketResource(),
    },
    # The work is waiting for HTTP: more processes buy nothing within a workspace. Across workspaces, runs are spread.
    executor=dg.in_process_executor,
)
