"""Dagster starts a run for what waits in the inbox, one for each workspace, and syncs what no webhook told."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import dagster as dg
import psycopg
import pytest
from anyio import to_thread
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from dx_dagster.assets.ours import OURS
from dx_dagster.automation.decisions import due_for_sync, needs_refresh
from dx_dagster.automation.under_way import queued_syncs, started_syncs, syncing_workspaces
from dx_dagster.automation.upkeep import upkeep
from dx_dagster.importer.session import locked
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.warehouse.connections.due import Paced
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks.inbox import Waiting
from dx_dagster.webhooks.inboxes import Inboxes, Surroundings
from dx_dagster_tests.delivering import SMALL, Receiving, inbox, installed
from dx_dagster_tests.importing import KEYS, Heard, give_credential
from dx_dagster_tests.ticking import hourly_sync, look_for_lost_runs, nightly_reconcile, webhook_events

# Dagster reads what pydantic has deprecated, and warns of what Dagster calls beta.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]
_COPY_DELIVERIES = """
    INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, received_at)
    SELECT c.id, c.workspace, e.request_uuid, event_key, headers, body, received_at
    FROM webhook_events e, connections c WHERE c.workspace <> e.workspace"""
_LIMIT = """
    INSERT INTO budgets (name, rests_until)
    SELECT 'credential:' || d.id, now() + interval '1 hour'
    FROM credentials d JOIN connections c ON c.id = d.connection_id WHERE c.workspace = 'limited'
    ON CONFLICT (name) DO UPDATE SET rests_until = EXCLUDED.rests_until"""
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_one_run_for_all_workspaces_and_another_one_only_where_deliveries_wait_for_long():
    due, late = Waiting("Acme", 1, seconds=4), Waiting("late", 1, seconds=16)
    nothing = [Waiting("idle", 0), Waiting("locked", 3, seconds=90, is_locked=True)]
    assert not needs_refresh(nothing, set(), [], 2)
    assert needs_refresh([*nothing, due], set(), [], 2)
    assert not needs_refresh([*nothing, due], {"acme"}, [], 2)
    assert not needs_refresh([*nothing, due], set(), [0], 2)
    assert needs_refresh([*nothing, due, late], set(), [300], 2)
    assert not needs_refresh([*nothing, due, late], {"late"}, [300], 2)
    assert not needs_refresh([*nothing, due, late], set(), [300, 20], 2)
    # The next one begins before the last one ends.
    assert needs_refresh([due], set(), [580], 1)
    assert not needs_refresh([due], set(), [580, 0], 1)
    assert not needs_refresh([due, late], set(), [580, 590], 1)


def test_syncs_spread_over_the_hour_and_the_stalest_come_first():
    known = [Paced(f"w{n}", NOW - timedelta(minutes=50 + n), 10) for n in range(24)]
    known.append(Paced("never", None, 0))
    assert due_for_sync(known, {"w23"}, NOW, HOUR, None) == ["never", "w22", "w21"]  # a twelfth of 25
    assert due_for_sync(known, {"w23"}, NOW, HOUR, None, queued=2) == ["never"]
    assert len(due_for_sync(known, set(), NOW, HOUR, 100)) == 15
    assert due_for_sync(known[:5], set(), NOW, HOUR, None) == []


@pytest.fixture
def defs() -> dg.Definitions:
    from dx_dagster import definitions  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    return definitions.defs


@pytest.fixture
def installation(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiving]:
    with installed(database_url, SMALL) as made:
        monkeypatch.setenv("DX_DATABASE_URL", database_url)
        monkeypatch.setenv("DX_SECRET_KEYS", KEYS)
        monkeypatch.setenv("BITBUCKET_API_URL", made.sandbox.url)
        monkeypatch.setenv("DX_WEBHOOKS_LINGER", "0")
        yield made


def test_deliveries_become_one_run_that_applies_them_all_and_says_so(installation, defs):
    def tick() -> dg.SensorResult:
        result = webhook_events(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SensorResult)
        return result

    watcher = Watcher(installation.sandbox.world)
    with dg.DagsterInstance.ephemeral() as instance:
        (added,) = tick().dynamic_partitions_requests or ()
        assert added.partition_keys == ["acme"]
        instance.add_dynamic_partitions("workspaces", ["acme"])
        assert not tick().run_requests

        for _ in range(20):
            installation.sandbox.world.step()
        installation.deliver(*watcher.deliveries())
        (request,) = tick().run_requests or ()
        assert (request.partition_key, request.run_key) == (None, None)

        job, sync = (defs.resolve_job_def(name) for name in ("refresh_workspaces", "sync_workspace"))
        for other, tags in ((job, {"dx/kind": "refresh"}), (sync, {"dx/workspace": "acme"})):
            under_way = instance.create_run_for_job(other, status=dg.DagsterRunStatus.STARTED, tags=tags)
            assert not tick().run_requests
            instance.delete_run(under_way.run_id)

        done = job.execute_in_process(instance=instance)
        assert done.success
        assert not tick().run_requests
        materialized = {event.asset_key.to_user_string() for event in done.get_asset_materialization_events()}
        assert "bitbucket/pullrequests" in materialized

        # A person may start one for a single workspace.
        installation.sandbox.world.open_pull_request(installation.sandbox.world.open_repositories[0])
        installation.deliver(*watcher.deliveries())
        instance.add_dynamic_partitions("workspaces", ["other"])
        one = defs.resolve_job_def("refresh_workspace")
        for partition, takes_them in (("other", False), ("acme", True)):
            tags = {"dx/workspace": partition}
            assert one.execute_in_process(instance=instance, partition_key=partition, tags=tags).success
            assert bool(tick().run_requests) is not takes_them

        # What was applied a month ago is kept no longer.
        with psycopg.connect(installation.database_url) as connection:
            connection.execute("UPDATE webhook_events SET applied_at = now() - interval '31 days' WHERE id > 1")
        assert job.execute_in_process(instance=instance).success
        assert [row["id"] for row in inbox(installation.database_url)] == [1]

        # A run that cannot even begin lets its deliveries wait.
        with psycopg.connect(installation.database_url) as connection:
            connection.execute("UPDATE credentials SET disabled_at = now()")
        installation.sandbox.world.open_pull_request(installation.sandbox.world.open_repositories[0])
        installation.deliver(*watcher.deliveries())
        failed = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not failed.success
        assert not tick().run_requests
    assert {row["attempts"] for row in inbox(installation.database_url)} == {0}


def test_a_run_whose_database_goes_away_fails_with_a_sentence(installation, postgres, defs):
    watcher = Watcher(installation.sandbox.world)
    for _ in range(20):
        installation.sandbox.world.step()
    installation.deliver(*watcher.deliveries())
    installation.sandbox.requests.reset()
    installation.sandbox.faults.latency = 0.3
    name = installation.database_url.partition("@/")[2].partition("?")[0]

    def administrator(*statements: str) -> None:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def go_away() -> None:
        while not len(installation.sandbox.requests):
            time.sleep(0.01)
        administrator(
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )

    job = defs.resolve_job_def("refresh_workspaces")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("workspaces", ["acme"])
        accident = threading.Thread(target=go_away)
        accident.start()
        failed = job.execute_in_process(instance=instance, raise_on_error=False)
        accident.join()
        (step,) = [event for event in failed.all_events if event.is_step_failure]
        assert step.step_failure_data.user_failure_data.description.startswith(
            "The database at DX_DATABASE_URL does not"
        )
        administrator(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        installation.let_retries_come()
        assert job.execute_in_process(instance=instance).success
    installation.sync()
    assert installation.differences() == {}


def test_a_sync_that_ends_while_the_database_is_gone_is_recorded_later(database_url, defs, monkeypatch):
    """Dagster gives a sensor each run once, where the sensor raises too."""
    monkeypatch.setenv("DX_SECRET_KEYS", KEYS)
    sensor, job = defs.resolve_sensor_def("finished_syncs"), defs.resolve_job_def("sync_workspace")

    def tick(cursor: str | None, url: str) -> str | None:
        monkeypatch.setenv("DX_DATABASE_URL", url)
        evaluated = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
        kept: str | None = evaluated.cursor
        return kept

    with dg.DagsterInstance.ephemeral() as instance, psycopg.connect(database_url, autocommit=True) as connection:
        connected = (
            "INSERT INTO connections (workspace, type, name, state) VALUES ('acme', 'bitbucket', 'a', 'verified')"
        )
        connection.execute(connected)
        cursor = tick(None, database_url)
        run = instance.create_run_for_job(job, tags={"dagster/partition": "acme"})
        for happened in ("PIPELINE_START", "PIPELINE_SUCCESS"):
            instance.report_dagster_event(DagsterEvent(happened, job.name), run.run_id)
        with pytest.raises(dg.DagsterError, match="The sync of acme is not recorded yet: The database"):
            tick(cursor, "postgresql://nobody@127.0.0.1:1/none")
        assert tick(cursor, database_url) != cursor
        assert connection.execute("SELECT FROM connections WHERE last_synced_at IS NOT NULL").rowcount == 1


def test_a_run_whose_process_is_gone_is_ended_and_one_at_work_is_not(installation, defs):
    job = defs.resolve_job_def("refresh_workspaces")

    def started(instance: dg.DagsterInstance, tags: dict[str, str], begun: float) -> str:
        run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTING)
        event = DagsterEvent("PIPELINE_START", job.name)
        entry = EventLogEntry(None, 20, "", run.run_id, begun, dagster_event=event)  # type: ignore[no-untyped-call]
        instance.handle_new_event(entry)
        return run.run_id

    with dg.instance_for_test() as instance, psycopg.connect(installation.database_url) as connection:
        # Dagster's clock may say anything: an hour ago, or tomorrow.
        tags, moments = {"dx/workspace": "acme"}, (time.time() - 3600, time.time() + 86_400)
        gone = {started(instance, tags, moment) for moment in moments}
        gone.add(started(instance, {"dagster/partition": "acme"}, moments[0]))  # by a click in Dagster's UI
        at_work, returning = (started(instance, tags, moment) for moment in moments)
        foreign = started(instance, {}, moments[0])
        gone.add(instance.create_run_for_job(upkeep(OURS), status=dg.DagsterRunStatus.STARTED).run_id)
        cancelled = instance.create_run_for_job(upkeep(OURS), status=dg.DagsterRunStatus.STARTED)
        instance.report_run_canceling(cancelled)
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"dx-dagster run {at_work}"])
        assert syncing_workspaces(OURS, instance) == {"acme"}
        # Two looks: just before and just after an outage.
        cursor = look_for_lost_runs(instance, look_for_lost_runs(instance, None), later=3600)
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"dx-dagster run {returning}"])
        assert not any(run.is_finished for run in instance.get_runs())
        cursor = look_for_lost_runs(instance, cursor)
        assert {run.run_id for run in instance.get_runs() if run.is_failure} == gone
        ended = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELED]))
        assert [run.run_id for run in ended] == [cancelled.run_id], "a failed one would be started again"

        # It is at work again; what it missed before counts no more, nor does another machine's clock.
        connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [f"dx-dagster run {returning}"])
        cursor = look_for_lost_runs(instance, look_for_lost_runs(instance, cursor), later=59)
        cursor = look_for_lost_runs(instance, cursor.replace('"clock": "', '"clock": "of another '), later=3600)
        assert {run.run_id for run in instance.get_runs() if not run.is_finished} == {at_work, returning, foreign}


def test_a_reconcile_in_the_queue_keeps_nobody_waiting(defs):
    job = defs.resolve_job_def("sync_workspace")
    location = GrpcServerCodeLocationOrigin("localhost", 1)
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job.name)
    with dg.DagsterInstance.ephemeral() as instance:
        for workspace, kind in (("patient", "reconcile"), ("acme", "sync")):
            tags = {"dx/workspace": workspace, "dx/kind": kind}
            instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
        instance.create_run_for_job(job, tags={"dagster/partition": "by hand"}, status=dg.DagsterRunStatus.STARTED)
        assert syncing_workspaces(OURS, instance) == {"acme", "by hand"}
        assert started_syncs(OURS, instance) == {"by hand"}
        assert queued_syncs(OURS, instance) == 1


def test_a_sync_is_queued_beside_a_refresh_that_never_ends_and_gets_its_workspace(installation, defs):
    watcher = Watcher(installation.sandbox.world)
    refresh, sync = (defs.resolve_job_def(name) for name in ("refresh_workspaces", "sync_workspace"))
    waits: list[float] = []
    builds = 0

    def change() -> None:
        installation.sandbox.world.open_pull_request(installation.sandbox.world.open_repositories[0])
        installation.deliver(*watcher.deliveries())

    async def work(instance: dg.DagsterInstance) -> None:
        async def build(_: Workspace) -> None:
            """Ends a batch: the next deliveries are there, and after the second one also a sync."""
            nonlocal builds
            assert not waits
            builds += 1
            await to_thread.run_sync(change)
            if builds == 2:
                instance.create_run_for_job(sync, tags={"dx/workspace": "Acme"}, status=dg.DagsterRunStatus.STARTED)
                group.start_soon(importing)

        async def importing() -> None:
            began = time.monotonic()
            async with locked(warehouse.apart(), "acme", Heard()):
                waits.append(time.monotonic() - began)
                await anyio.sleep(2.5)

        async def report(_: str, written: Counter[str]) -> None:
            assert written

        surroundings = Surroundings(lambda _: Heard(), lambda: started_syncs(OURS, instance), build, report)
        settings = installation.settings.model_copy(update={"webhooks_linger": 3.0})
        async with Warehouse(installation.database_url) as warehouse, anyio.create_task_group() as group:
            await Inboxes(settings, warehouse, "run", surroundings, linger=settings.webhooks_linger).drain()

    with dg.instance_for_test() as instance:
        instance.create_run_for_job(refresh, tags={"dx/kind": "refresh"}, status=dg.DagsterRunStatus.STARTED)
        asked: Any = hourly_sync(dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW))
        assert [request.partition_key for request in asked] == ["acme"]
        change()
        asyncio.run(work(instance))
    assert builds >= 2
    assert [seconds < 5 for seconds in waits] == [True]
    left = [row for row in inbox(installation.database_url) if row["applied_at"] is None]
    assert {row["attempts"] for row in left} == {0}


def test_one_run_takes_the_deliveries_of_all_workspaces_and_none_holds_up_another(installation, defs):
    url, settings = installation.database_url, installation.settings
    for name in ("revoked", "unreadable", "limited", "busy"):
        give_credential(settings, name, f"ATCTT3-{name}")
    watcher = Watcher(installation.sandbox.world)
    for _ in range(20):
        installation.sandbox.world.step()
    installation.deliver(*watcher.deliveries())
    job = defs.resolve_job_def("refresh_workspaces")
    with dg.DagsterInstance.ephemeral() as instance, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE credentials SET secret = 'moved here' WHERE label LIKE '%' AND connection_id = "
            "(SELECT id FROM connections WHERE workspace = 'unreadable')"
        )
        connection.execute(_COPY_DELIVERIES)
        connection.execute("SELECT pg_advisory_lock(hashtextextended('dx-dagster import busy', 0))")
        connection.execute(_LIMIT)
        failed = job.execute_in_process(instance=instance, raise_on_error=False)
        assert set(instance.get_dynamic_partitions("workspaces")) == {"acme"}
        assert instance.get_materialized_partitions(dg.AssetKey(["bitbucket", "pullrequests"])) == {"acme"}
        results = instance.all_logs(failed.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
        checked = [one.dagster_event.asset_check_evaluation_data for one in results if one.dagster_event is not None]
        assert {(one.partition, one.passed) for one in checked} == {("acme", True)}
    (step,) = [event for event in failed.all_events if event.is_step_failure]
    told = step.step_failure_data.user_failure_data
    assert told.description.startswith("The deliveries of 2 workspaces wait. revoked: ")
    by_workspace = told.metadata["outcomes"].value
    assert sum(by_workspace["acme"].values()) > 10, by_workspace
    rows = {name: [row for row in inbox(url) if row["workspace"] == name] for name in by_workspace}
    assert all(row["applied_at"] and row["applied_by"] == failed.run_id for row in rows["acme"])
    assert {(row["attempts"], row["error"]) for row in rows["busy"]} == {(0, None)}
    for name in ("revoked", "unreadable", "limited"):
        assert {row["attempts"] for row in rows[name]} == {0}
        assert all(row["error"] for row in rows[name]), name
    assert installation.differences() == {}


@pytest.mark.usefixtures("installation")
def test_schedules_request_a_run_for_each_connected_workspace_whatever_dagster_knows(defs):
    def requested(schedule: Any) -> Any:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW)
        asked = schedule(context)
        return [] if isinstance(asked, dg.SkipReason) else asked

    with dg.instance_for_test() as instance:
        (hourly,) = requested(hourly_sync)
        assert instance.get_dynamic_partitions("workspaces") == ["acme"]
        instance.delete_dynamic_partition("workspaces", "acme")  # as a click in Dagster's UI does
        (nightly,) = requested(nightly_reconcile)
        assert instance.get_dynamic_partitions("workspaces") == ["acme"]
    assert hourly.tags["dx/workspace"] == nightly.tags["dx/workspace"] == "acme"
    scheduled = {"config": {"scheduled": True}}
    paced = ("members", "pullrequests", "activity", "comments", "commits", "pipelines", "deployments")
    assert hourly.run_config == {"ops": {f"bitbucket__{step}": scheduled for step in paced}}
    again = {"config": {"reconcile": True}}
    everything = {"config": {"full": True, "reconcile": True}}
    runs = dict.fromkeys(("bitbucket__pipelines", "bitbucket__deployments"), again)
    assert nightly.run_config == {"ops": {"bitbucket__pullrequests": everything, **runs}}
    for request in (hourly, nightly):
        assert dg.validate_run_config(defs.resolve_job_def("sync_workspace"), request.run_config)
