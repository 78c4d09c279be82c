"""The job that imports one workspace."""

import dagster as dg

from dx_dagster.assets.bitbucket import IMPORTED
from dx_dagster.assets.derived import DERIVED
from dx_dagster.assets.steps import of_a_sync
from dx_dagster.settings import Settings

_STEPS = of_a_sync(Settings.read())

sync_workspace = dg.define_asset_job(
    "sync_workspace",
    selection=dg.AssetSelection.assets(*(one for one in IMPORTED if one.key.path[-1] in _STEPS))
    # Without their checks, whose results they yield all the same: Dagster stores three events for each one it selects.
    | dg.AssetSelection.assets(*DERIVED).without_checks(),
    description="Imports what changed in one workspace, and brings the derived tables up to date.",
)
