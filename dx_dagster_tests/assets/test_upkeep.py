"""What Dagster shows of each partition stays, though repeated results are not stored and old runs are removed."""

import asyncio
from collections.abc import Sequence
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.loader import LoadingContextForTest

from dx_dagster.assets.steps import SIZES
from dx_dagster.automation.dagster_storage import keep_for_a_run
from dx_dagster.cli.installation import Installation
from dx_dagster.settings import Settings
from dx_dagster_tests.connecting import TOKEN

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]
SIZE = "SELECT count(*) FROM dagster.event_logs"
AGE = "UPDATE dagster.runs SET update_timestamp = update_timestamp - interval '31 days'"
BREAK = "UPDATE bitbucket_pulls SET merged_at = NULL WHERE state = 'MERGED' AND merged_at IS NOT NULL"
BROKEN = dg.AssetCheckKey(dg.AssetKey(["bitbucket", "pullrequests"]), "merged_at_is_known")


def results(instance: dg.DagsterInstance, defs: dg.Definitions) -> dict[dg.AssetCheckKey, Sequence[str]]:
    """The results of each check, the last one first. Dagster's UI shows the last one if it is of the last rows."""
    storage = instance.event_log_storage
    wanted = [key for key in defs.resolve_asset_graph().asset_check_keys if key.asset_key.path[-1] != SIZES]
    histories = {key: storage.get_asset_check_execution_history(key, limit=9) for key in wanted}
    for key, history in histories.items():
        assert asyncio.run(history[0].targets_latest_materialization(LoadingContextForTest(instance))), key
    assert all(one.is_current for one in storage.get_asset_check_partition_info(wanted))
    return {key: [record.status.value for record in history] for key, history in histories.items()}


def shown(instance: dg.DagsterInstance, defs: dg.Definitions) -> dict[str, Any]:
    """What Dagster's UI says of the partition: its materializations, and the last result of each check."""
    graph, storage = defs.resolve_asset_graph(), instance.event_log_storage
    wanted = {
        key: dg.AssetRecordsFilter(asset_key=key, asset_partitions=["acme"]) for key in graph.executable_asset_keys
    }
    materialized = {
        key.to_user_string(): (
            instance.get_materialized_partitions(key),
            [one.storage_id for one in instance.fetch_materializations(records, limit=1).records],
        )
        for key, records in wanted.items()
    }
    checked = {
        str(key): [(one.status, one.run_id) for one in storage.get_asset_check_execution_history(key, limit=1)]
        for key in graph.asset_check_keys
    }
    return materialized | checked


def test_old_runs_go_and_the_last_of_each_partition_stays(environment, sandbox, run_cli, monkeypatch):
    environment |= {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": TOKEN}
    for arguments in (("connect", "acme"), ("sync", "acme"), ("sync", "acme")):
        done = run_cli(*arguments, env=environment)
        assert done.returncode == 0, done.stderr
    for name in ("DX_HOME", "DX_DATABASE_URL", "DX_SECRET_KEYS", "BITBUCKET_API_URL"):
        monkeypatch.setenv(name, environment[name])
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    with (
        Installation.open(Settings.read()).dagster() as instance,
        psycopg.connect(environment["DX_DATABASE_URL"], autocommit=True) as database,
    ):

        def upkeep() -> int:
            done = defs.resolve_job_def("upkeep").execute_in_process(instance=instance)
            assert done.success
            instance.delete_run(done.run_id)
            [(events,)] = database.execute(SIZE).fetchall()
            return int(events)

        keep_for_a_run(instance)  # a connection for each of its hundred questions would take most of the time
        once = results(instance, defs)
        assert set(map(tuple, once.values())) == {("SUCCEEDED",)}  # of two syncs
        before, events = shown(instance, defs), upkeep()
        assert shown(instance, defs) == before
        database.execute(AGE.encode())
        assert upkeep() < events / 2
        assert shown(instance, defs) == before
        assert len(instance.get_runs()) == 2  # the one that stored the results, and the last one
        database.execute(BREAK.encode())
        done = run_cli("sync", "acme", env=environment)
        assert done.returncode == 0, done.stderr
        assert results(instance, defs) == once | {BROKEN: ["FAILED", "SUCCEEDED"]}
