"""The derived assets, one for each of `BUILDS`. They read and write the database and make no request."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.code_references import code_of
from dx_dagster.assets.partitions import workspace_of
from dx_dagster.assets.placement import Placement
from dx_dagster.assets.step import Events, column_schema, failure, materialization, row_counts
from dx_dagster.assets.steps import ASSETS, FIRST, key_of
from dx_dagster.bitbucket import sentence
from dx_dagster.importer.workspace import NotImportedError
from dx_dagster.insights import building, measures, pictures
from dx_dagster.insights.building import Build, Built
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.checks.looking import Verdict
from dx_dagster.insights.unified import BUILDS
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.telemetry import spans
from dx_dagster.warehouse.connections.vault import VaultError
from dx_dagster.warehouse.database import Warehouse, WarehouseError, as_written

_LINEAGE = "dagster/column_lineage"


class BuildConfig(dg.Config):
    """How much a build looks at.

    Attributes:
        full: builds everything again, and not only what changed since the last build.
    """

    full: bool = False


def _spec(build: Build, there: Collection[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=dg.AssetKey.from_user_string(build.key),
        # Each is downstream of the first step: where that fails, as for an unknown workspace, no other one runs.
        deps=[dg.AssetKey.from_user_string(after) for after in build.after or (key_of(FIRST),) if after in there],
        group_name=build.key.split("/")[0],
        kinds={"postgres", "sql"},
        owners=["team:platform"],
        description=f"{build.table.comment}.",
        metadata={
            "dagster/table_name": str(build.table.name),
            "dagster/column_schema": column_schema(build.table, _origins(build)),
            _LINEAGE: column_lineage(build),
            **code_of(build.work),
        },
    )


def _tables(placement: Placement, name: str, builds: Sequence[Build], description: str) -> dg.AssetsDefinition:
    """One step that builds the tables: Dagster takes longer to start a step than most builds take."""

    @dg.multi_asset(
        name=placement.name(name),
        description=description,
        specs=[placement.specs[build.key] for build in builds],
        check_specs=[spec for build in builds for spec in checks.specs(placement, build.key)],
        partitions_def=placement.partitions,
        required_resource_keys={placement.name("warehouse")},
        can_subset=True,
    )
    def tables(context: dg.AssetExecutionContext, config: BuildConfig) -> Events:
        warehouse = placement.warehouse(context)
        failed: dict[str, Exception] = {}
        for build in builds:
            if placement.key(build.key) not in context.selected_asset_keys or failed.keys() & set(build.after):
                continue
            try:
                work = _build(placement, warehouse.connected, build, context.partition_key, full=config.full)
                with spans.span(f"step {build.key}", run_id=context.run.run_id, workspace=context.partition_key):
                    metadata, verdicts = warehouse.run(work)
            except (NotImportedError, SettingsError, WarehouseError) as error:
                failed[build.key] = error
            else:
                yield materialization(context, placement.key(build.key), metadata)
                yield from checks.evaluations(placement, context, warehouse, verdicts)
        yield from checks.alone(placement, context, warehouse, [build.key for build in builds])
        if failed:
            raise failure(next(iter(failed.values()))) from None

    return tables


async def _build(
    placement: Placement, warehouse: Warehouse, build: Build, slug: str, *, full: bool
) -> tuple[dict[str, Any], list[Verdict]]:
    """Builds and checks the workspace's rows; returns also the metadata of the materialization."""
    slug, workspace_id = await workspace_of(warehouse, slug)
    if workspace_id is None:
        raise NotImportedError(slug)
    settings = BusinessTime.text(placement.settings())
    built = await building.run(warehouse, build, workspace_id, settings=settings, full=full)
    rows = await row_counts(warehouse, build.table, workspace_id)
    of_workspace = rows["dagster/partition_row_count"]
    verdicts = await checks.look(placement, warehouse, build.key, slug, workspace_id, rows=of_workspace, full=full)
    spec = placement.specs[build.key]
    metadata = {**await shown(placement, warehouse, build, slug, workspace_id), **rows, **_written(spec, built)}
    return metadata, verdicts


async def shown(
    placement: Placement, warehouse: Warehouse, build: Build, slug: str, workspace_id: str
) -> dict[str, Any]:
    """What Dagster shows of the workspace's figures: charts, and numbers, which it plots over time."""
    figures = await _figures(placement, warehouse, build, workspace_id)
    return {**_charts(placement.settings(), build, slug), **figures}


async def _figures(placement: Placement, warehouse: Warehouse, build: Build, workspace_id: str) -> dict[str, float]:
    """Numbers; those that are unknown are left out."""
    if not build.figures:
        return {}
    row = await warehouse.row(build.figures, {"workspace": workspace_id, "zone": placement.settings().time_zone})
    return {name: value for name, value in row._asdict().items() if value is not None} if row else {}


def _charts(settings: Settings, build: Build, workspace: str) -> dict[str, dg.MarkdownMetadataValue]:
    """The charts of the measures, where it is known at which address a browser reaches our API."""
    written = ""
    if settings.api_address is not None:
        with suppress(VaultError):  # no reason for a build to fail
            written = pictures.markdown(build.key, workspace, settings.api_address, pictures.keys(settings))
    return {"charts": dg.MarkdownMetadataValue(written)} if written else {}


def _written(spec: dg.AssetSpec, built: Built) -> dict[str, Any]:
    return {
        "written": dg.JsonMetadataValue(as_written(built.written)),
        "everything": built.everything,
        # Not each time: Dagster stores metadata twice, and the definition has it too.
        **({_LINEAGE: spec.metadata[_LINEAGE]} if built.everything else {}),
    }


def column_lineage(build: Build) -> dg.TableColumnLineage:
    """The columns that each of the table's columns comes from, as far as an asset shows them."""
    deps = {
        column: [
            dg.TableColumnDep(asset_key=dg.AssetKey.from_user_string(ASSETS[table]), column_name=origin)
            for table, origin in sorted(origins)
            if table in ASSETS
        ]
        for column, origins in build.origins.items()
    }
    return dg.TableColumnLineage(deps_by_column=deps)


def _origins(build: Build) -> dict[str, str]:
    """For each column the columns that it comes from, in words. Dagster's open-source UI draws no column lineage."""
    return {
        column: f"from {', '.join(f'{table}.{origin}' for table, origin in sorted(origins))}"
        for column, origins in build.origins.items()
        if origins
    }


def build_without_pipelines(placement: Placement, context: dg.AssetExecutionContext, *, full: bool) -> None:
    """Builds measures after a failed import of pipelines or deployments, of which Dagster skips the step that does so.

    Their tables come before, with the rows that are there. Only measures count as materialized: nothing else is new.
    """
    warehouse = placement.bitbucket(context).warehouse
    builds = [build for build in builds_of(placement) if build in _OF_PIPELINES]
    try:
        for build in builds:
            metadata, _ = warehouse.run(_build(placement, warehouse.connected, build, context.partition_key, full=full))
            if build in measures.BUILDS:
                key = placement.key(build.key)
                context.log_event(dg.AssetMaterialization(key, metadata=metadata, partition=context.partition_key))
    except (NotImportedError, SettingsError, WarehouseError) as error:  # the failure of the import is what people see
        context.log.warning("The measures were not built: %s", sentence(str(error)))


def _after(builds: Iterable[Build], imported: Iterable[str]) -> list[Build]:
    """Those that read the rows of these assets, themselves or through others."""
    reading = set(imported)
    for build in builds:
        if reading & set(build.after):
            reading.add(build.key)
    return [build for build in builds if build.key in reading]


# Two steps, so that a credential that may not read pipelines holds up their tables alone; `build_without_pipelines`
# then builds the measures.
_OF_PIPELINES = _after(BUILDS, {"bitbucket/pipelines", "bitbucket/deployments"})
DERIVED_STEPS = {
    "tables_of_pull_requests": "Builds the tables of people, reviews and pull requests.",
    "tables_of_pipelines": "Builds the tables of pipelines and deployments, and the measures, which read them.",
}


def builds_of(placement: Placement) -> list[Build]:
    """The builds of the placement: not those of pipelines and deployments where it leaves these out."""
    left_out = {key_of(step) for step in ("pipelines", "deployments") if step not in placement.steps}
    return [build for build in BUILDS if not left_out & set(build.after)] if placement.with_derived else []


def derived_specs(placement: Placement) -> dict[str, dg.AssetSpec]:
    """The specs of the derived assets, by name."""
    builds = builds_of(placement)
    there = {key_of(step) for step in placement.steps} | {build.key for build in builds}
    return {build.key: _spec(build, there) for build in builds}


def derived(placement: Placement) -> list[dg.AssetsDefinition]:
    builds = builds_of(placement)
    of_pull_requests = [build for build in builds if build not in _OF_PIPELINES]
    of_pipelines = [build for build in builds if build in _OF_PIPELINES]
    steps = zip(DERIVED_STEPS.items(), (of_pull_requests, of_pipelines), strict=True)
    return [_tables(placement, name, builds, description) for (name, description), builds in steps if builds]
