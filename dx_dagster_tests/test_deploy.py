"""The files of deploy/: what they name exists."""

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import typer.main
import yaml
from billiard.exceptions import WorkerLostError
from celery import Celery, _state
from celery.contrib.testing.worker import start_worker
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import pack_value
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task

from dx_dagster.assets.ours import OURS
from dx_dagster.automation import celery_launcher
from dx_dagster.automation.celery_free_places import FreePlaces
from dx_dagster.automation.celery_launcher import WorkerRunLauncher, waiting_tasks
from dx_dagster.automation.celery_task import RunTask
from dx_dagster.automation.upkeep import upkeep
from dx_dagster.cli import dagster_yaml
from dx_dagster.cli.app import app
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.worker import report_lost_run, worker
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.runs import executing
from dx_dagster_tests.conftest import wait_until
from dx_dagster_tests.ticking import look_for_lost_runs

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def values(node: Any, key: str) -> Iterator[Any]:
    """The values of that key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from values(value, key)


@pytest.mark.parametrize(("file", "key", "expected"), [("compose.yaml", "command", 5), ("kubernetes.yaml", "args", 6)])
def test_containers_run_commands_that_exist_with_settings_that_exist(file, key, expected):
    text = (DEPLOY / file).read_text()
    documents = list(yaml.safe_load_all(text))
    commands = list(values(documents, key))
    assert len(commands) == expected
    for command in commands:
        require_command(command)
    assert_settings_exist(text)


def require_command(command: list[str]) -> None:
    name, *options = command
    group = typer.main.get_command(app)
    group.commands[name].make_context(name, options)  # type: ignore[attr-defined] # it raises where an option is unknown


def assert_settings_exist(text: str) -> None:
    aliases = {str(field.alias) for field in Settings.model_fields.values()}
    assert set(re.findall(r"\bDX_[A-Z_]+", text)) - aliases == set()


def test_systemd_starts_commands_that_exist_with_settings_that_exist():
    units = sorted(DEPLOY.glob("*.service"))
    assert [one.name for one in units] == ["dx-dagster-worker.service", "dx-dagster.service"]
    for unit in units:
        [started] = re.findall(r"^ExecStart=\S+/dx-dagster (.*)$", unit.read_text(), re.MULTILINE)
        require_command(started.split())
        assert_settings_exist(unit.read_text())


def test_the_helm_chart_gets_the_settings_of_dagster_yaml():
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    text = (DEPLOY / "helm-values.yaml").read_text()
    charts = yaml.safe_load(text)
    assert_settings_exist(text)
    daemon = charts["dagsterDaemon"]
    queue = in_snake_case(daemon["runCoordinator"]["config"]["queuedRunCoordinator"])
    assert queue == ours["run_queue"] | ours["concurrency"]["runs"]
    for name in ("run_monitoring", "run_retries", "sensors", "schedules", "backfills"):
        shown = in_snake_case(daemon)[name]
        assert {key: shown.get(key) for key in ours[name]} == ours[name]
    assert in_snake_case(charts["retention"]) == {"enabled": True} | ours["retention"]
    assert charts["additionalInstanceConfig"] == {"nux": ours["nux"]}
    assert charts["telemetry"] == ours["telemetry"]
    [location] = [one["python_module"] for one in yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]]
    [deployment] = charts["dagster-user-deployments"]["deployments"]
    server = {"host": deployment["name"], "port": deployment["port"], "name": location["location_name"]}
    assert charts["dagsterWebserver"]["workspace"]["servers"] == [server]


def in_snake_case(node: Any) -> Any:
    """The chart's camelCase keys as dagster.yaml has them; `applyLimitPerUniqueValue` is Dagster's own."""
    if isinstance(node, list):
        return [in_snake_case(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept = {"applyLimitPerUniqueValue"}
    return {
        name if name in kept else re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): in_snake_case(value)
        for name, value in node.items()
    }


@pytest.fixture(autouse=True)
def tasks_of_one_test(monkeypatch) -> None:
    """Celery gives each task of an app to all later apps of the process."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set(vars(_state)["_on_app_finalizers"]))


@pytest.fixture
def celery_instance(tmp_path, monkeypatch) -> InstanceRef:
    """An instance as an installation with a broker has it."""
    settings = Settings.given(celery_broker="redis://:a-password@127.0.0.1:6379/0", concurrent_runs=8)
    (tmp_path / "dagster.yaml").write_text(dagster_yaml.text(settings, ROOT / "dagster.yaml"))
    monkeypatch.setenv("DX_CELERY_BROKER", "memory://")  # a broker inside this process
    return InstanceRef.from_dir(str(tmp_path))


def test_a_broker_makes_runs_tasks_of_workers_and_a_scheduled_sync_leaves_room(celery_instance):
    launcher = celery_instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    assert launcher.celery.conf.broker_url == "memory://"
    assert launcher.celery.conf.worker_disable_prefetch, "a busy worker keeps runs from an idle one"
    assert "a-password" not in json.dumps(celery_instance.to_dict()), "each task carries it to the broker"
    runs = celery_instance.settings["concurrency"]["runs"]
    assert runs["max_concurrent_runs"] == 8
    assert [limit["limit"] for limit in runs["tag_concurrency_limits"]] == [1, 1, 6, 4]


@pytest.mark.parametrize(("most", "limits"), [(3, [1, 1]), (4, [2, 2]), (5, [3, 2]), (22, [20, 11]), (202, [200, 101])])
def test_scheduled_runs_leave_room_however_many_run_at_once(most, limits):
    text = dagster_yaml.text(Settings.given(concurrent_runs=most), ROOT / "dagster.yaml")
    runs = yaml.safe_load(text)["concurrency"]["runs"]
    assert runs["max_concurrent_runs"] == most
    assert [limit["limit"] for limit in runs["tag_concurrency_limits"]] == [1, 1, *limits]


def test_a_run_that_is_terminated_on_a_worker_is_cancelled_and_not_started_again(celery_instance):
    launcher = celery_instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    with dg.DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        tags = {"dagster-celery/task_id": "of a worker that was killed"}
        for number, known in enumerate(({}, tags)):
            run = instance.create_run_for_job(upkeep(OURS), status=dg.DagsterRunStatus.STARTED, tags=known)
            assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING, "only its lock tells"
            assert launcher.terminate(run.run_id)
            canceling = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELING]))
            assert len(canceling) == number + 1


def test_an_image_has_what_the_tests_have_without_their_tools():
    def locked(path: Path) -> set[str]:
        return set(re.findall(r"^\S+==\S+|--hash=\S+", path.read_text(), re.MULTILINE))

    ours, image = locked(ROOT / "requirements.lock"), locked(DEPLOY / "requirements.lock")
    assert image <= ours, "run: make lock"
    assert {one.partition("==")[0] for one in image} & {"pytest", "mypy", "ruff", "playwright"} == set()


def test_a_worker_ends_a_run_whose_process_was_killed(celery_instance):
    launcher = celery_instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    code = ModuleCodePointer("dx_dagster.definitions", "defs", None)
    with dg.instance_for_test() as instance:
        launcher.register_instance(instance)
        run = instance.create_run_for_job(
            upkeep(OURS),
            status=dg.DagsterRunStatus.STARTED,
            job_code_origin=JobPythonOrigin("upkeep", RepositoryPythonOrigin("python", code)),
        )
        launcher.launch_run(LaunchRunContext(run, None))
        with launcher.celery.connection_for_read() as connection, connection.SimpleQueue("dagster") as queue:
            _, kwargs, _ = queue.get(timeout=5).payload
        report_lost_run(exception=ValueError("its code failed, and said so"), kwargs=kwargs)
        assert [one.status for one in instance.get_runs()] == [dg.DagsterRunStatus.STARTED]
        report_lost_run(exception=WorkerLostError("signal 9 (SIGKILL)"), kwargs=kwargs)
        assert [one.status for one in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]


def _nothing() -> None:
    """A task that a worker knows, and that is never executed here."""


@pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer")
def test_a_run_that_the_broker_lost_is_ended_and_one_that_a_worker_has_is_not(database_url, monkeypatch):
    monkeypatch.setenv("DX_DATABASE_URL", database_url)
    monkeypatch.setattr(celery_launcher, "_SECONDS_BETWEEN_LOOKS", 0.1)
    code = ModuleCodePointer("dx_dagster.definitions", "defs", None)
    origin = JobPythonOrigin("upkeep", RepositoryPythonOrigin("python", code))
    configured = yaml.safe_load(dagster_yaml.CELERY)
    options = {"broker_transport_options": {"polling_interval": 0.05}}
    configured["run_launcher"]["config"] = {"broker": "memory://", "config_source": options}  # inside this process

    with dg.instance_for_test(overrides=configured) as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, WorkerRunLauncher)
        launcher.celery.task(_nothing, name="nothing", shared=False)
        job = upkeep(OURS)

        def ended() -> set[str]:
            look_for_lost_runs(instance, None)
            return {run.run_id for run in instance.get_runs() if run.is_finished}

        def empty_the_broker() -> None:
            with launcher.celery.connection_for_write() as connection, connection.channel() as channel:
                channel.queue_purge("dagster")

        lost = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING, job_code_origin=origin)
        launcher.launch_run(LaunchRunContext(lost, None))
        empty_the_broker()
        assert ended() == set(), "no worker answers, so it may be at one"
        with start_worker(launcher.celery, perform_ping_check=False, queues=["another"], loglevel="warning"):
            held = launcher.celery.send_task("nothing", queue="another", countdown=600).id
            while not launcher.celery.control.inspect(timeout=0.3).query_task(held):
                pass
            tags = {DAGSTER_CELERY_TASK_ID_TAG: held}
            instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING, tags=tags)
            launcher.celery.send_task("nothing", queue="dagster")
            assert ended() == set(), "a task is in the queue, and it may be this one"
            empty_the_broker()
            unsent = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING)
            tags = {DAGSTER_CELERY_TASK_ID_TAG: "of the run before it"}
            again = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING, tags=tags)
            with monkeypatch.context() as sending:
                sending.setattr(CeleryRunLauncher, "launch_run", lambda *_: None)  # the broker takes its time
                launcher.launch_run(LaunchRunContext(again, None))
            assert wait_until(lambda: bool(ended()))  # a worker may answer too late at one look
            assert ended() == {lost.run_id}, "it may be about to be sent"
        monkeypatch.setattr(celery_launcher, "_SECONDS_TO_ANSWER", 0.01)
        cursor = look_for_lost_runs(instance, look_for_lost_runs(instance, None), later=60)
        assert ended() == {lost.run_id}
        look_for_lost_runs(instance, cursor)
        assert ended() == {lost.run_id, unsent.run_id, again.run_id}, "the daemon ended while it sent the task"
        [why] = [entry.message for entry in instance.all_logs(lost.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)]
        assert "not in the broker, and no worker has it" in why


def test_a_busy_worker_leaves_runs_to_others_with_brokers_other_than_redis(celery_instance):
    launcher = celery_instance.run_launcher
    assert isinstance(launcher, WorkerRunLauncher)
    begun, end = threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        assert end.acquire(timeout=20)

    def waiting() -> int:
        with launcher.celery.connection_for_read() as connection:
            return waiting_tasks(connection, "dagster")

    launcher.celery.task(work, name="work", shared=False)
    launcher.celery.steps["consumer"].add(FreePlaces)
    with start_worker(launcher.celery, perform_ping_check=False, pool="threads", loglevel="warning"):
        for _ in range(2):
            launcher.celery.send_task("work", queue="dagster")
        for left in (1, 0):
            assert begun.acquire(timeout=20)
            time.sleep(0.3)
            assert waiting() == left, "the worker holds a run for which it has no place"
            end.release()


@pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer")
def test_a_run_that_is_given_to_two_workers_is_executed_once(database_url, monkeypatch):
    monkeypatch.setenv("DX_DATABASE_URL", database_url)
    code = ModuleCodePointer("dx_dagster.definitions", "defs", None)
    origin = JobPythonOrigin("upkeep", RepositoryPythonOrigin("python", code))
    options: dict[str, Any] = {"base": RunTask}
    task = create_execute_job_task(Celery(broker="memory://"), **options)
    with dg.instance_for_test() as instance:
        run = instance.create_run_for_job(upkeep(OURS), status=dg.DagsterRunStatus.STARTING, job_code_origin=origin)
        packed = pack_value(ExecuteRunArgs(origin, run.run_id, instance.get_ref()))

        def starts() -> list[str]:
            task(execute_job_args_packed=packed)
            entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_START)
            return [entry.run_id for entry in entries]

        with executing(database_url, run.run_id) as is_alone:
            assert is_alone
            assert starts() == [], "the other worker has not begun it"
        assert starts() == [run.run_id]
        assert starts() == [run.run_id], "it has ended"


@pytest.mark.parametrize("address", ["http://:a-password@broker", "redis://:a-password@broker:a-port", "a-password"])
def test_a_brokers_address_that_cannot_be_used_is_refused_and_not_quoted(address, tmp_path, monkeypatch):
    monkeypatch.setenv("DX_HOME", str(tmp_path))
    monkeypatch.setenv("DX_CELERY_BROKER", address)
    with pytest.raises(SettingsError, match=r"^DX_CELERY_BROKER must look like redis://") as refused:
        worker()
    assert "a-password" not in str(refused.value)


def test_a_broker_without_celery_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dagster_yaml, "find_spec", lambda _name: None)
    with pytest.raises(CommandError, match="pip install"):
        dagster_yaml.text(Settings.given(celery_broker="redis://broker"), ROOT / "dagster.yaml")


def test_a_worker_without_a_broker_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DX_HOME", str(tmp_path))
    with pytest.raises(CommandError, match=r"^DX_CELERY_BROKER is not set.* Set it for all services"):
        worker()
