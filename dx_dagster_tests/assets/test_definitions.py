"""What Dagster shows of the assets: a table of contents, and where each column comes from."""

import inspect
from typing import Any

import dagster as dg
import pytest

from dx_dagster.assets.steps import ASSETS, SIZES, STEPS
from dx_dagster.bitbucket import endpoints
from dx_dagster.insights.unified import BUILDS

pytestmark = pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer")
NOT_READ_BY_AN_IMPORT = {"hooks", "hook"}


@pytest.fixture(scope="module")
def graph() -> Any:
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    return defs.resolve_asset_graph()


def test_the_assets_read_like_a_table_of_contents(graph):
    executable = {key.to_user_string() for key in graph.executable_asset_keys}
    assert executable == {f"bitbucket/{step}" for step in STEPS} | {build.key for build in BUILDS}
    for key in graph.get_all_asset_keys():
        asset = graph.get(key)
        assert asset.group_name == {"api": "bitbucket_api"}.get(key.path[0], key.path[0])
        assert asset.owners == ["team:platform"]
        assert asset.description
        assert 0 < len(asset.kinds) <= 4
        if not asset.is_external:
            assert {"dagster/code_references", "dagster/table_name", "dagster/column_schema"} <= asset.metadata.keys()


def test_a_sync_materializes_every_asset_but_sizes_unless_they_are_switched_on(graph):
    from dx_dagster.automation.syncing import SYNC  # noqa: PLC0415

    selected = SYNC.selection.resolve(graph)
    assert selected == graph.executable_asset_keys - {dg.AssetKey(["bitbucket", SIZES])}


def test_every_endpoint_that_an_import_reads_is_upstream_of_an_asset(graph):
    functions = inspect.getmembers(endpoints, inspect.isfunction)
    public = {
        name
        for name, function in functions
        if inspect.signature(function).return_annotation is endpoints.Endpoint and not name.startswith("_")
    }
    external = {key for key in graph.get_all_asset_keys() if graph.get(key).is_external}
    assert {key.path[-1] for key in external} == public - NOT_READ_BY_AN_IMPORT
    for key in external:
        assert graph.get(key).child_keys
        assert graph.get(key).metadata["path"].startswith(("/repositories/{workspace}", "/workspaces/{workspace}"))


def test_lineage_leads_to_columns_that_exist_in_assets_upstream(graph):
    def columns(key: dg.AssetKey) -> set[str]:
        return {column.name for column in graph.get(key).metadata["dagster/column_schema"].columns}

    for build in BUILDS:
        key = dg.AssetKey(build.key.split("/"))
        upstream = graph.get_ancestor_asset_keys(key)
        lineage = graph.get(key).metadata["dagster/column_lineage"].deps_by_column
        assert lineage.keys() <= columns(key)
        for column, origins in lineage.items():
            for origin in origins:
                assert origin.asset_key in upstream, (build.key, column)
                assert origin.column_name in columns(origin.asset_key), (build.key, column)
        tables = {table for found in build.origins.values() for table, _ in found}
        assert any(lineage.values()) == any(table in ASSETS for table in tables)
