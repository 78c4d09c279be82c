"""One installation, always known: which one a command works on, that it is meant, and what is wrong with it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psycopg
import pytest
import redis
from celery.contrib.testing.worker import start_worker
from cryptography.fernet import Fernet
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from dx_dagster.automation.celery_launcher import WorkerRunLauncher
from dx_dagster.cli import dagster_yaml, running
from dx_dagster.cli.doctor_checks import CHECKS
from dx_dagster.cli.doctor_checks.examination import Examination
from dx_dagster.cli.installation import packaged
from dx_dagster.cli.ports import free_port
from dx_dagster.settings import Settings
from dx_dagster.warehouse.locks import Lock
from dx_dagster_tests.bad_input.telling import paragraph
from dx_dagster_tests.commands import SEEN, Done
from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.connecting import TOKEN

Env = Mapping[str, str]


def examined(run_cli: RunCli, env: Env) -> tuple[int, dict[str, list[str]]]:
    """The exit status of `doctor --json`, and the states of each check."""
    ports = ("--ui-port", str(free_port()), "--api-port", str(free_port()))
    done = run_cli("doctor", "--json", *ports, env=env)
    found: dict[str, list[str]] = {}
    for one in json.loads(done.stdout)["checks"]:
        found.setdefault(one["name"], []).append(one["state"])
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, found


def test_doctor_finds_nothing_bad_in_a_good_installation_and_then_each_fault(
    run_cli: RunCli, environment, sandbox, database_url
):
    env = environment | {"BITBUCKET_API_URL": sandbox.url}
    assert run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": TOKEN}).returncode == 0
    status, good = examined(run_cli, env)
    assert (status, {state for states in good.values() for state in states}) == (0, {"good", "warning"})
    assert [name for name, states in good.items() if "warning" in states] == ["daemon"], "it is not running"

    sandbox.tokens[:] = []
    other_keys = {"DX_SECRET_KEYS": Fernet.generate_key().decode()}
    nowhere = {"BITBUCKET_API_URL": f"http://127.0.0.1:{free_port()}/2.0"}
    elsewhere = {"DX_DATABASE_URL": "postgresql://u:correct-horse@127.0.0.1:1/x"}
    no_broker = {"DX_CELERY_BROKER": "redis://:correct-horse@127.0.0.1:1/0"}
    for change, bad in (
        ({"DX_PUBLIC_URL": "https://dx.example.com"}, {"credentials"}),
        (other_keys | nowhere, {"keys", "API"}),
        (nowhere | elsewhere | no_broker, {"database", "API", "Celery"}),
        (nowhere | {"DX_LOG_SIZE": "big", "DX_SYNC_CRON": "soon"}, {"settings", "API"}),
    ):
        status, found = examined(run_cli, env | change)
        assert (status, {name for name, states in found.items() if "bad" in states}) == (1, bad)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT FROM credentials WHERE disabled_at IS NOT NULL").rowcount == 0
        connection.execute("UPDATE dx_schema_version SET version_num = '9999'")
    assert examined(run_cli, env)[1]["tables"] == ["bad"]
    told = run_cli("up", "--check", env=env | elsewhere)
    assert "u@127.0.0.1:1/x (from DX_DATABASE_URL)" in told.stdout
    assert "correct-horse" not in told.stdout + told.stderr


def test_a_copy_of_dagsters_configuration_without_what_imports_rely_on_is_bad(run_cli: RunCli, environment, dx_home):
    own = dx_home / "dagster" / "dagster.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("telemetry: {enabled: false}\n")
    assert examined(run_cli, environment)[1]["Dagster"] == ["bad"]


@pytest.fixture
def redis_server(tmp_path) -> Iterator[str]:
    """The address of a Redis that asks for a password."""
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "requirepass": "a-password", "save": "", "dir": tmp_path}
    command = ["redis-server", *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        client = redis.Redis(port=port, password="a-password", retry=Retry(ConstantBackoff(0.05), 200))
        assert client.ping()
        client.close()
        yield f"redis://:a-password@127.0.0.1:{port}/0"
        process.terminate()


@pytest.mark.skipif(
    shutil.which("redis-server") is None and "CI" not in os.environ,
    reason="redis-server is not installed (apt-get install redis-server)",
)
def test_doctor_tells_whether_runs_get_through_the_broker_to_workers(redis_server: str, dx_home: Path, monkeypatch):
    def require(state: str, *words: str, check: str = "Celery", **settings: str) -> None:
        for name, value in ({"DX_HOME": str(dx_home), "DX_CELERY_BROKER": redis_server} | settings).items():
            monkeypatch.setenv(name, value)
        [found] = CHECKS[check](Examination.begin(1, 2))
        assert found.state == state, found.text
        assert [one for one in words if one not in found.text] == [], found.text
        assert "-password" not in found.text

    shown = redis_server.replace(":a-password@", "")
    require("bad", f"{shown} refuses", DX_CELERY_BROKER=redis_server.replace("a-password", "b-password"))
    require("bad", "redis://127.0.0.1:1/0 cannot be used", DX_CELERY_BROKER="redis://:a-password@127.0.0.1:1/0")
    several = f"{redis_server};redis://:b-password@127.0.0.1:1/0"
    require("bad", f"{shown} or redis://127.0.0.1:1/0 answers", DX_CELERY_BROKER=several)
    app = WorkerRunLauncher("dagster", broker=redis_server).celery
    app.send_task(TASK_EXECUTE_JOB_NAME)
    require("bad", f"{shown} answers, with 1 run in its queue. No worker answered", "Start workers")
    app.control.purge()
    with start_worker(app, pool="threads", concurrency=6, perform_ping_check=False, loglevel="warning"):
        good = f"{shown} answers, with 0 runs in its queue. 1 worker with 6 places for runs."
        require("good", good)
        require("warning", good, "Start more workers", DX_CONCURRENT_RUNS="7")

    own = dx_home / "dagster" / "dagster.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(packaged("dagster.yaml").read_text().partition("\n")[2])
    require("bad", "run_launcher is not WorkerRunLauncher", check="Dagster")
    own.write_text(own.read_text() + dagster_yaml.CELERY)
    require("good", check="Dagster")


def test_a_ui_on_another_address_is_looked_for_there(dx_home: Path, monkeypatch):
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    monkeypatch.setenv("DX_HOME", str(dx_home))
    with ThreadingHTTPServer(("127.0.0.2", 0), Ready) as ui, ThreadingHTTPServer(("127.0.0.1", 0), Ready) as api:
        for server in (ui, api):
            Thread(target=server.serve_forever, daemon=True).start()
        ports = (ui.server_port, api.server_port)
        with running.alone(Settings.read(), "up", *ports, ui_host="127.0.0.2"):
            states = [one.state for one in CHECKS["ports"](Examination.begin(1, 2))]
        for server in (ui, api):
            server.shutdown()
    assert states == ["good", "good"]


@pytest.fixture
def in_folders(bare_environment, dx_home, tmp_path, monkeypatch):
    """An environment without DX_HOME, in a folder below one with a home, on a machine without other installations."""
    env = {name: value for name, value in bare_environment.items() if name != "DX_HOME"}
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return env | {SEEN: str(dx_home)}


def test_a_home_is_found_from_below_and_none_is_made_where_one_must_exist(run_cli: RunCli, in_folders: Env, tmp_path):
    def run(*arguments: str) -> Done:
        return run_cli(*arguments, env=in_folders)

    for command in (("status",), ("api-keys", "create", "x"), ("credentials", "list", "acme")):
        paragraph(run(*command), f"There is no installation in {tmp_path}/project/src/.dx. ", "connect WORKSPACE")
    assert json.loads(run("doctor", "--json").stdout)["ok"] is False
    assert list(tmp_path.rglob(".dx")) == []
    home = tmp_path / "project" / ".dx"
    (home / "dagster").mkdir(parents=True)
    paragraph(run("up"), f"The installation in {home} has no embedded database", "DX_DATABASE_URL")
    (home / "dagster").rmdir()
    (home / "settings").write_text("DX_SYNC_EVERY=1800\n")
    told = json.loads(run("doctor", "--json").stdout)
    assert (told["home"], told["home_origin"]) == (str(home), "found above the current folder")
    assert "DX_SYNC_EVERY" in told["checks"][0]["message"]
    if os.geteuid() == 0:  # the settings of another user would decide where tokens are sent
        os.chown(home, 12345, -1)
        assert json.loads(run("doctor", "--json").stdout)["home"] == str(tmp_path / "project" / "src" / ".dx")


def test_a_second_up_on_a_home_and_a_second_daemon_on_a_database_are_refused(
    run_cli: RunCli, environment, in_folders: Env, tmp_path
):
    dx_home, database_url = Path(environment["DX_HOME"]), environment["DX_DATABASE_URL"]
    ports = ("--ui-port", str(free_port()), "--api-port", str(free_port()))
    first = Settings.model_validate({name: environment[name] for name in ("DX_HOME", "DX_DATABASE_URL")})
    with running.alone(first, "up", 1, 2):
        me = f"process {os.getpid()}, dx-dagster up"
        for command in ("up", "demo"):
            paragraph(run_cli(command, *ports, env=environment), f"The installation in {dx_home} runs already ({me})")
        # A service of that `up`, by which commands without a home find it.
        service = [sys.executable, "-c", "input()", "dx_dagster.cli", "serve"]
        with subprocess.Popen(service, env=environment, stdin=subprocess.PIPE) as process:
            for command, *rest in (("up", *ports), ("connect", "acme"), ("status",)):
                told = paragraph(run_cli(command, *rest, env=in_folders), f"{dx_home} ({me}). To use ")
                assert f"export DX_HOME={dx_home}" in told
            process.communicate(b"\n")
    assert running.running_in(dx_home) is None
    assert list(tmp_path.rglob(".dx")) == []
    lock = Lock(database_url, running.DAEMON_LOCK, holder=running.daemon_name())
    assert lock.take()
    try:
        other = environment | {"DX_HOME": str(tmp_path / "other")}
        paragraph(
            run_cli("up", *ports, env=other),
            f"A Dagster daemon works on this database already (process {os.getpid()} on",
        )
    finally:
        lock.release()
