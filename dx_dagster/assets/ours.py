"""The placement of our own code location: names are those of the contract, settings those of the environment."""

from dx_dagster.assets.catalog import Assets, assets, placed
from dx_dagster.assets.placement import Placement

OURS = placed(Placement())
ASSETS: Assets = assets(OURS)
