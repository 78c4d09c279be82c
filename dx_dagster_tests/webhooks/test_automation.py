"""Dagster starts a run for what waits in the inbox, one for each workspace, and syncs what no webhook told."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.events.log import EventLogEntry
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from dx_dagster.automation.decisions import RUNS_A_TICK, due_for_sync, refreshes
from dx_dagster.automation.lost_runs import lost_runs
from dx_dagster.automation.schedules import hourly_sync, nightly_reconcile
from dx_dagster.automation.sensors import webhook_events
from dx_dagster.automation.under_way import busy_workspaces, is_waited_for, queued_syncs
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.due import Paced
from dx_dagster.warehouse.webhooks.inbox import Waiting
from dx_dagster.webhooks.drain import Turn, drain
from dx_dagster_tests.delivering import SECRET, SMALL, Receiving, give_secret, inbox, installed
from dx_dagster_tests.importing import KEYS

# Dagster reads what pydantic has deprecated, and warns of what Dagster calls beta.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_run_for_each_workspace_that_waits_and_none_where_one_is_under_way():
    waiting = [Waiting("b", 7), Waiting("a", 1), Waiting("busy", 3), Waiting("idle", 0)]
    decision = refreshes(waiting, busy={"busy"}, registered={"a", "busy"})
    assert decision.run == ("b", "a")
    assert decision.register == ("b", "idle")
    assert len(refreshes([Waiting(str(n), 1) for n in range(500)], set(), set()).run) == RUNS_A_TICK


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
        assert (request.partition_key, request.tags["dx/workspace"]) == ("acme", "acme")
        assert request.run_key is None

        job = defs.resolve_job_def("refresh_workspace")
        under_way = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={"dx/workspace": "acme"})
        assert not tick().run_requests
        instance.delete_run(under_way.run_id)

        done = job.execute_in_process(instance=instance, partition_key="acme", tags=dict(request.tags))
        assert done.success
        assert not tick().run_requests
        materialized = {event.asset_key.to_user_string() for event in done.get_asset_materialization_events()}
        assert "bitbucket/pullrequests" in materialized

        # What was applied a month ago is kept no longer.
        with psycopg.connect(installation.database_url) as connection:
            connection.execute("UPDATE webhook_events SET applied_at = now() - interval '31 days' WHERE id > 1")
        assert job.execute_in_process(instance=instance, partition_key="acme").success
        assert [row["id"] for row in inbox(installation.database_url)] == [1]

        # A run that cannot even begin lets its deliveries wait.
        with psycopg.connect(installation.database_url) as connection:
            connection.execute("UPDATE credentials SET disabled_at = now()")
        installation.sandbox.world.open_pull_request(installation.sandbox.world.open_repositories[0])
        installation.deliver(*watcher.deliveries())
        failed = job.execute_in_process(instance=instance, partition_key="acme", raise_on_error=False)
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

    job = defs.resolve_job_def("refresh_workspace")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("workspaces", ["acme"])
        accident = threading.Thread(target=go_away)
        accident.start()
        failed = job.execute_in_process(instance=instance, partition_key="acme", raise_on_error=False)
        accident.join()
        (step,) = [event for event in failed.all_events if event.is_step_failure]
        assert step.step_failure_data.user_failure_data.description.startswith(
            "The database at DX_DATABASE_URL does not"
        )
        administrator(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        installation.let_retries_come()
        assert job.execute_in_process(instance=instance, partition_key="acme").success
    installation.sync()
    assert installation.differences() == {}


def test_a_run_whose_process_is_gone_is_ended_and_one_at_work_is_not(installation, defs):
    job = defs.resolve_job_def("refresh_workspace")

    def started(instance: dg.DagsterInstance, tags: dict[str, str], begun: float) -> str:
        run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTING)
        event = DagsterEvent("PIPELINE_START", job.name)
        entry = EventLogEntry(None, 20, "", run.run_id, begun, dagster_event=event)  # type: ignore[no-untyped-call]
        instance.handle_new_event(entry)
        return run.run_id

    def look(instance: dg.DagsterInstance, cursor: str | None, later: float = 0) -> str:
        """The cursor after a look, so much later than the last one."""
        known = json.loads(cursor) if cursor else {"missing": {}}
        for missing in known["missing"].values():
            missing[0] -= later
        context = dg.build_sensor_context(instance=instance, cursor=json.dumps(known) if cursor else None)
        lost_runs(context)
        assert context.cursor
        return context.cursor

    with dg.instance_for_test() as instance, psycopg.connect(installation.database_url) as connection:
        # Dagster's clock may say anything: an hour ago, or tomorrow.
        tags, moments = {"dx/workspace": "acme"}, (time.time() - 3600, time.time() + 86_400)
        gone = {started(instance, tags, moment) for moment in moments}
        gone.add(started(instance, {"dagster/partition": "acme"}, moments[0]))  # by a click in Dagster's UI
        at_work, returning = (started(instance, tags, moment) for moment in moments)
        foreign = started(instance, {}, moments[0])
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"dx-dagster run {at_work}"])
        assert busy_workspaces(instance) == {"acme"}
        cursor = look(instance, look(instance, None), later=3600)  # two looks: just before and just after an outage
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"dx-dagster run {returning}"])
        assert not any(run.is_finished for run in instance.get_runs())
        cursor = look(instance, cursor)
        assert {run.run_id for run in instance.get_runs() if run.is_failure} == gone

        # It is at work again; what it missed before counts no more, nor does another process's clock.
        connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [f"dx-dagster run {returning}"])
        cursor = look(instance, look(instance, cursor), later=59)
        cursor = look(instance, cursor.replace('"process": "', '"process": "of another '), later=3600)
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
        assert busy_workspaces(instance) == {"acme", "by hand"}
        assert queued_syncs(instance) == 1


def test_a_sync_is_queued_beside_a_refresh_that_never_ends_and_the_refresh_makes_room(installation, defs):
    refresh, sync = (defs.resolve_job_def(name) for name in ("refresh_workspace", "sync_workspace"))
    with dg.instance_for_test() as instance:
        tags = {"dx/workspace": "acme", "dx/kind": "refresh"}
        instance.create_run_for_job(refresh, tags=tags, status=dg.DagsterRunStatus.STARTED)
        asked: Any = hourly_sync(dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW))
        assert [request.partition_key for request in asked] == ["acme"]
        assert not is_waited_for(instance, "acme")
        instance.create_run_for_job(sync, tags={"dx/workspace": "acme"}, status=dg.DagsterRunStatus.STARTED)
        assert is_waited_for(instance, "Acme")

        async def without_end(workspace: Workspace) -> float:
            began = time.monotonic()
            waited_for = partial(is_waited_for, instance, workspace.slug)
            await drain(workspace, "run", linger=60, keep=HOUR, is_waited_for=waited_for)
            return time.monotonic() - began

        assert installation.on_workspace(without_end) < 10


class SimulatedHour:
    """Dagster's daemon over one workspace, in seconds that nobody waits for: ticks, a queue, and runs that take time.

    What is decided is decided by our own code, over a real instance; how long things take is made up.
    """

    CHANGE, TICK, LOOK = 3, 5, 300  # seconds between changes, ticks of webhook_events, and looks of hourly_sync
    STARTING, SYNCING, LINGER = 4, 90, 10

    def __init__(self, instance: dg.DagsterInstance, defs: dg.Definitions, database_url: str) -> None:
        self._instance, self._database_url = instance, database_url
        self._jobs = {kind: defs.resolve_job_def(f"{kind}_workspace") for kind in ("refresh", "sync")}
        self._queue: list[tuple[int, int, str, str]] = []  # the negative priority, since when, the kind, the run
        self._under_way: tuple[str, str, int] | None = None  # the kind, the run, since when
        self._turn: Turn | None = None
        self._inbox = 0
        self.applied, self.refreshes = 0, 0
        self.waits: list[int] = []  # of syncs, from the look that found one due to its start

    def second(self, now: int) -> None:
        self._inbox += now % self.CHANGE == 0
        if now % self.TICK == 0:
            busy = busy_workspaces(self._instance)
            for _ in refreshes([Waiting("acme", self._inbox)] if self._inbox else [], busy, {"acme"}).run:
                self._enqueue(now, "refresh", {"dx/workspace": "acme", "dx/kind": "refresh", "dagster/priority": "10"})
        if now % self.LOOK == 0:
            context = dg.build_schedule_context(
                instance=self._instance, scheduled_execution_time=NOW + timedelta(seconds=now)
            )
            asked: Any = hourly_sync(context)
            for request in [] if isinstance(asked, dg.SkipReason) else asked:
                self._enqueue(now, "sync", dict(request.tags))
        if self._under_way is None and self._queue:
            self._start(now)
        if self._under_way is not None and self._is_over(now, *self._under_way):
            self._end(now, *self._under_way)

    def _enqueue(self, now: int, kind: str, tags: dict[str, str]) -> None:
        job = self._jobs[kind]
        origin = RemoteJobOrigin(
            RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", 1), "__repository__"), job.name
        )
        run = self._instance.create_run_for_job(
            job, tags=tags, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin
        )
        self._queue.append((-int(tags["dagster/priority"]), now, kind, run.run_id))

    def _start(self, now: int) -> None:
        """One run of the workspace at a time (dagster.yaml), by priority and age."""
        self._queue.sort()
        _, since, kind, run_id = self._queue.pop(0)
        if kind == "sync":
            self.waits.append(now - since)
        self._under_way = (kind, run_id, now)
        self._turn = None
        self._tell("PIPELINE_START", kind, run_id)

    def _is_over(self, now: int, kind: str, _: str, since: int) -> bool:
        if kind == "sync":
            return now - since >= self.SYNCING
        if now - since < self.STARTING:
            return False
        turn = self._turn = self._turn or Turn(now, self.LINGER)
        if turn.is_over(now, lambda: is_waited_for(self._instance, "acme")):
            return True
        if self._inbox:
            self.applied, self._inbox = self.applied + self._inbox, 0
            turn.applied(now)
        return turn.has_lingered(now)

    def _end(self, now: int, kind: str, run_id: str, _: int) -> None:
        self.refreshes += kind == "refresh"
        self._under_way = None
        self._tell("PIPELINE_SUCCESS", kind, run_id)
        if kind == "sync":
            with psycopg.connect(self._database_url) as connection:
                connection.execute("UPDATE connections SET last_synced_at = %s", [NOW + timedelta(seconds=now)])

    def _tell(self, event: str, kind: str, run_id: str) -> None:
        told = DagsterEvent(event, self._jobs[kind].name)
        self._instance.handle_new_event(EventLogEntry(None, 20, "", run_id, 0.0, dagster_event=told))  # type: ignore[no-untyped-call]


def test_within_an_hour_of_changes_each_due_sync_gets_its_turn(database_url, defs, monkeypatch):
    monkeypatch.setenv("DX_DATABASE_URL", database_url)
    monkeypatch.setenv("DX_SYNC_EVERY", "600")
    give_secret(Settings.model_validate({"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS}), "acme", SECRET)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE connections SET last_synced_at = %s", [NOW])
    with dg.instance_for_test() as instance:
        hour = SimulatedHour(instance, defs, database_url)
        for now in range(3600):
            hour.second(now)
    # Due 600 s after the last one ended, which took 90 s: at the looks at 600, 1500, 2400 and 3300 s.
    assert len(hour.waits) == 4
    assert max(hour.waits) <= 5, hour.waits
    assert hour.refreshes >= 4
    assert hour.applied >= 3600 / hour.CHANGE - hour.SYNCING


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
