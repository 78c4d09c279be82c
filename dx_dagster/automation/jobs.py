"""The job that imports one workspace."""

import dagster as dg

from dx_dagster.assets.bitbucket import IMPORTED
from dx_dagster.assets.derived import DERIVED

sync_workspace = dg.define_asset_job(
    "sync_workspace",
    selection=dg.AssetSelection.assets(*IMPORTED, *DERIVED),
    description="Imports what changed in one workspace, and brings the derived tables up to date.",
)
