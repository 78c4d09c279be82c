"""The job that imports one workspace."""

import dagster as dg

sync_workspace = dg.define_asset_job(
    "sync_workspace",
    selection=dg.AssetSelection.key_prefixes("bitbucket"),
    description="Imports what changed in one workspace.",
)
