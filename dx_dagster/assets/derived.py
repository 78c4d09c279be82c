"""The derived assets, one for each of `BUILDS`. They read and write the database and make no request."""

from typing import Any

import dagster as dg

from dx_dagster.assets import checks
from dx_dagster.assets.code_references import code_of
from dx_dagster.assets.partitions import WORKSPACES
from dx_dagster.assets.step import Materialized, column_schema, failure, row_counts
from dx_dagster.assets.steps import ASSETS
from dx_dagster.importer.workspace import NotImportedError
from dx_dagster.insights import building
from dx_dagster.insights.building import Build, Built
from dx_dagster.insights.business_hours import BusinessTime
from dx_dagster.insights.unified import BUILDS
from dx_dagster.resources import WarehouseResource
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.connections import connections
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.imported import repositories


class BuildConfig(dg.Config):
    """How much a build looks at.

    Attributes:
        full: builds everything again, and not only what changed since the last build.
    """

    full: bool = False


def _asset(build: Build) -> dg.AssetsDefinition:
    key = dg.AssetKey(build.key.split("/"))

    @dg.asset(
        key=key,
        deps=[dg.AssetKey(after.split("/")) for after in build.after],
        partitions_def=WORKSPACES,
        group_name=key.path[0],
        check_specs=checks.specs(build.key),
        kinds={"postgres", "sql"},
        owners=["team:platform"],
        description=f"{build.table.comment}.",
        metadata={
            "dagster/table_name": str(build.table.name),
            "dagster/column_schema": column_schema(build.table, _origins(build)),
            "dagster/column_lineage": column_lineage(build),
            **code_of(build.work),
        },
    )
    def derived(context: dg.AssetExecutionContext, config: BuildConfig, warehouse: WarehouseResource) -> Materialized:
        try:
            work = _build(warehouse.connected, build, context.partition_key, full=config.full)
            return warehouse.run(work)
        except (NotImportedError, SettingsError, WarehouseError) as error:
            raise failure(error) from None

    return derived


async def _build(warehouse: Warehouse, build: Build, slug: str, *, full: bool) -> Materialized:
    """Builds and checks the workspace's rows."""
    slug = await connections.stored_name(warehouse, slug)  # the partition key may differ in case
    async with warehouse.transaction(read_only=True) as transaction:
        workspace_id = await repositories.workspace_id(transaction, slug)
    if workspace_id is None:
        raise NotImportedError(slug)
    settings = BusinessTime.text(Settings.read())
    built = await building.run(warehouse, build, workspace_id, settings=settings, full=full)
    rows = await row_counts(warehouse, build.table, workspace_id)
    results = await checks.look(
        warehouse, build.key, slug, workspace_id, rows["dagster/partition_row_count"], full=full
    )
    return dg.MaterializeResult(metadata={**rows, **_written(build, built)}, check_results=results)


def _written(build: Build, built: Built) -> dict[str, Any]:
    table = build.table.name
    return {
        "written": dg.JsonMetadataValue({f"{table}/inserted": built.inserted, f"{table}/updated": built.updated}),
        "everything": built.everything,
        # Not each time: Dagster stores metadata three times, and the definition has it too.
        **({"dagster/column_lineage": column_lineage(build)} if built.everything else {}),
    }


def column_lineage(build: Build) -> dg.TableColumnLineage:
    """The columns that each of the table's columns comes from, as far as an asset shows them."""
    deps = {
        column: [
            dg.TableColumnDep(asset_key=dg.AssetKey(ASSETS[table].split("/")), column_name=origin)
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


DERIVED = [_asset(build) for build in BUILDS]
