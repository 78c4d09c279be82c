"""Checks: what a person sees of them in Dagster, for each workspace."""

from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest

from dx_dagster.assets.steps import SIZES
from dx_dagster_tests.delivering import SMALL, Receiving, installed
from dx_dagster_tests.importing import KEYS
from dx_dagster_tests.ticking import late_workspaces

pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]
Told = dict[str, tuple[str | None, bool, str | None]]


@pytest.fixture
def installation(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiving]:
    with installed(database_url, SMALL) as made:
        monkeypatch.setenv("DX_DATABASE_URL", database_url)
        monkeypatch.setenv("DX_SECRET_KEYS", KEYS)
        monkeypatch.setenv("BITBUCKET_API_URL", made.sandbox.url)
        yield made


def test_each_workspace_shows_what_is_wrong_with_it_until_it_is_mended(installation):
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    with (
        dg.DagsterInstance.ephemeral() as instance,
        psycopg.connect(installation.database_url, autocommit=True) as database,
    ):
        instance.add_dynamic_partitions("workspaces", ["acme"])

        def run(job: str) -> Told:
            partition = "acme" if job == "sync_workspace" else None
            config = {} if partition else {"ops": {"check": {"config": {"workspace": "acme"}}}}
            made = defs.resolve_job_def(job)
            done = made.execute_in_process(instance=instance, partition_key=partition, run_config=config)
            return {
                f"{one.asset_key.to_user_string()} {one.check_name}": (one.partition, one.passed, one.description)
                for one in done.get_asset_check_evaluations()
            }

        found = run("sync_workspace")
        assert found.keys() == {
            f"{key.asset_key.to_user_string()} {key.name}"
            for key in defs.resolve_asset_graph().asset_check_keys
            if key.asset_key.path[-1] != SIZES  # a sync leaves it out
        }
        assert {(partition, passed) for partition, passed, _ in found.values()} == {("acme", True)}

        # In a pull request that no later sync asks for.
        is_merged = "WHERE id = (SELECT id FROM bitbucket_pulls WHERE state = 'MERGED' ORDER BY updated_at, id LIMIT 1)"
        database.execute(f"UPDATE bitbucket_pulls SET merged_at = NULL {is_merged}".encode())
        for _ in range(2):
            partition, passed, said = run("sync_workspace")["bitbucket/pullrequests merged_at_is_known"]
            assert (partition, passed) == ("acme", False)
            assert "is MERGED without merged_at. Its activity may be unreadable: " in (said or "")

        # As Dagster's UI executes checks alone, of an imported asset and a derived one.
        wanted = {
            dg.AssetCheckKey(dg.AssetKey(["bitbucket", "pullrequests"]), "merged_at_is_known"),
            dg.AssetCheckKey(dg.AssetKey(["unified", "pull_requests"]), "relations_hold"),
        }
        job = defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection=set(), asset_check_selection=wanted
        )
        alone = job.execute_in_process(instance=instance, partition_key="acme")
        told = {one.asset_check_key: one.passed for one in alone.get_asset_check_evaluations()}
        assert {key: told[key] for key in wanted} == {key: key.asset_key.path[0] == "unified" for key in wanted}
        assert not alone.get_asset_materialization_events()

        database.execute(f"UPDATE bitbucket_pulls SET merged_at = updated_at {is_merged}".encode())
        assert run("sync_workspace")["bitbucket/pullrequests merged_at_is_known"][1]

        # What changes while nothing runs: a sensor notices it, once.
        def changed() -> list[str]:
            result = late_workspaces(dg.build_sensor_context(instance=instance))
            requests = result if isinstance(result, list) else []
            assert not any("dagster/partition" in one.tags for one in requests)  # it would wait for a long import
            return [one.run_config["ops"]["check"]["config"]["workspace"] for one in requests]

        database.execute("UPDATE connections SET last_synced_at = now() - interval '1 day'")
        assert [changed(), changed()] == [["acme"], []]
        assert not run("check_workspace")["bitbucket/repositories synced_lately"][1]
        database.execute("UPDATE connections SET last_synced_at = now()")
        assert [changed(), changed()] == [["acme"], []]


@pytest.mark.usefixtures("installation")
def test_a_partition_added_by_hand_is_one_failure_with_one_sentence_and_no_asset_stays_red():
    from dx_dagster.definitions import defs  # noqa: PLC0415

    with dg.DagsterInstance.ephemeral() as instance:
        for tags, left in (({}, ["acme"]), ({"dagster/backfill": "b"}, ["acme", "typo"])):
            # Dagster gives up a whole backfill that lost a partition: there it stays.
            instance.add_dynamic_partitions("workspaces", ["acme", "typo"])
            done = defs.resolve_job_def("sync_workspace").execute_in_process(
                instance=instance, partition_key="typo", tags=tags, raise_on_error=False
            )
            (failed,) = done.filter_events(lambda event: event.is_step_failure)
            assert failed.step_key == "bitbucket__repositories"
            said = failed.step_failure_data.user_failure_data
            assert said
            assert str(said.description).startswith("Workspace typo is not connected.")
            assert instance.get_dynamic_partitions("workspaces") == left
