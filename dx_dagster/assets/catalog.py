"""All assets of a placement."""

import dagster as dg

from dx_dagster.assets.bitbucket import imported, imported_specs
from dx_dagster.assets.derived import derived, derived_specs
from dx_dagster.assets.external import external
from dx_dagster.assets.placement import Placement

Assets = list[dg.AssetSpec | dg.AssetsDefinition]


def placed(placement: Placement) -> Placement:
    """The placement with the specs of its assets, on which all its definitions rely."""
    steps = placement.steps
    return placement.placed({**external(steps), **imported_specs(steps), **derived_specs(placement)})


def assets(placement: Placement) -> Assets:
    external_specs = [placement.specs[name] for name in external(placement.steps)]
    return [*external_specs, *imported(placement), *derived(placement)]
