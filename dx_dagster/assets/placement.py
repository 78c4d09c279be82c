"""Where a set of definitions stands: in our own code location, or as a component in somebody's project.

Code and tables know an asset by its name, `bitbucket/pullrequests`. Here stands which key it has in Dagster, and what
jobs, sensors, resources and tags are called. Our own code location uses the names of its contract. In another project
they carry the component's name, so that nothing clashes with what the project has, or with a second component.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.steps import STEPS
from dx_dagster.settings import Settings

if TYPE_CHECKING:
    from dx_dagster.resources import BitbucketResource, WarehouseResource

_LINEAGE = "dagster/column_lineage"


@dataclass(frozen=True)
class AssetDescription:
    """What a component's `translation` is told about an asset.

    Attributes:
        name: its name, such as `pullrequests`.
        kind: `bitbucket` (imported, or derived with it), `unified`, `measures`, or `api` (an endpoint that is read).
        table: the table that it fills, if any.
    """

    name: str
    kind: str
    table: str | None


Translation = Callable[[dg.AssetSpec, AssetDescription], dg.AssetSpec]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Settings, names and choices of one set of definitions.

    Attributes:
        settings: reads the settings. In our own code location they may change while it is loaded.
        component: the component's name; None in our own code location.
        key_prefix: stands before each asset key.
        group: the group of all assets, in place of one for each kind.
        steps: the imported assets.
        with_derived: whether tables are derived.
        with_checks: whether the assets have checks.
        workspaces: shell patterns of the workspaces to import, of those that are connected.
        in_process: whether the jobs run their steps in one process, whatever the project's executor is.
        translate: changes the spec of each asset.
        specs: the specs of all assets, by name; see `placed`.
    """

    settings: Callable[[], Settings] = Settings.read
    component: str | None = None
    key_prefix: tuple[str, ...] = ()
    group: str | None = None
    owners: tuple[str, ...] = ("team:platform",)
    steps: tuple[str, ...] = tuple(STEPS)
    with_derived: bool = True
    with_checks: bool = True
    workspaces: tuple[str, ...] = ("*",)
    in_process: bool = True
    translate: Translation | None = None
    specs: Mapping[str, dg.AssetSpec] = field(default_factory=dict, repr=False)

    def placed(self, specs: Mapping[str, dg.AssetSpec]) -> "Placement":
        """This placement, with the specs of its assets. `specs` have their names for keys."""
        placed = {name: self._placed(name, spec) for name, spec in specs.items()}
        keys = {dg.AssetKey.from_user_string(name): spec.key for name, spec in placed.items()}
        if all(before == after for before, after in keys.items()):
            return replace(self, specs=placed)
        return replace(self, specs={name: _with_keys(spec, keys) for name, spec in placed.items()})

    def _placed(self, name: str, spec: dg.AssetSpec) -> dg.AssetSpec:
        if self.component is not None:
            key, group = spec.key.with_prefix(self.key_prefix), self.group or f"{self.component}_{spec.group_name}"
            spec = spec.replace_attributes(key=key, group_name=group, owners=self.owners)
        if self.translate is None:
            return spec
        kind, _, last = name.rpartition("/")
        table = spec.metadata.get("dagster/table_name")
        return self.translate(spec, AssetDescription(last, kind, str(table) if table else None))

    def key(self, asset: str) -> dg.AssetKey:
        """The key of the asset with this name."""
        return self.specs[asset].key

    def has(self, asset: str) -> bool:
        return asset in self.specs

    def are_ours(self, keys: Iterable[dg.AssetKey]) -> bool:
        """Whether one of these assets is of this placement."""
        return not {spec.key for spec in self.specs.values()}.isdisjoint(keys)

    def name(self, contract: str) -> str:
        """The name of what our own code location calls by the name of its contract: a job, a resource, an op."""
        return contract if self.component is None else f"{self.component}_{contract}"

    def tag(self, contract: str) -> str:
        """The key of a run's tag."""
        return f"{self.component or 'dx'}/{contract}"

    def setting(self, variable: str) -> str:
        """What the people who set a variable of the environment call it here."""
        return variable if self.component is None else variable.removeprefix("DX_").lower()

    def imports(self, workspace: str) -> bool:
        """Whether the workspace is one of those to import."""
        return any(fnmatchcase(workspace.lower(), pattern.lower()) for pattern in self.workspaces)

    @cached_property
    def partitions(self) -> dg.DynamicPartitionsDefinition:
        """One for each connected workspace."""
        return WORKSPACES if self.component is None else dg.DynamicPartitionsDefinition(name=self.name("workspaces"))

    def warehouse(self, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> "WarehouseResource":
        resource: WarehouseResource = getattr(context.resources, self.name("warehouse"))
        return resource

    def bitbucket(self, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> "BitbucketResource":
        resource: BitbucketResource = getattr(context.resources, self.name("bitbucket"))
        return resource


def _with_keys(spec: dg.AssetSpec, keys: Mapping[dg.AssetKey, dg.AssetKey]) -> dg.AssetSpec:
    """The spec with the keys that the assets which it reads have here."""
    deps = [dg.AssetDep(keys[one.asset_key]) if one.asset_key in keys else one for one in spec.deps]
    metadata, lineage = dict(spec.metadata), spec.metadata.get(_LINEAGE)
    if isinstance(lineage, dg.TableColumnLineage):
        renamed = {
            column: [
                dg.TableColumnDep(asset_key=keys[dep.asset_key], column_name=dep.column_name)
                for dep in deps_of_column
                if dep.asset_key in keys
            ]
            for column, deps_of_column in lineage.deps_by_column.items()
        }
        metadata[_LINEAGE] = dg.TableColumnLineage(deps_by_column=renamed)
    return spec.replace_attributes(deps=deps, metadata=metadata)
