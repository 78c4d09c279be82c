"""Folders of installations: copied, moved, reached by two names, and called as a shell would not take it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.bad_input.telling import alone
from dx_dagster_tests.conftest import RunCli, command_of, processes_of, wait_until

HOLD = """import sys
from dx_dagster.settings import Settings
from dx_dagster.warehouse.embedded import database_url
print(database_url(Settings.read()), flush=True)
sys.stdin.read()"""
Env = Mapping[str, str]


@contextmanager
def held(env: Env) -> Iterator[str]:
    """The address of the home's database, at work until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        yield holder.stdout.readline().strip()
        holder.stdin.close()
        assert holder.wait(60) == 0


def folder_of(url: str) -> Path:
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return Path(row[0])


@pytest.mark.parametrize("depth", [0, 30], ids=["a socket in the home", "a socket elsewhere"])
def test_a_copied_home_has_a_server_of_its_own(run_cli: RunCli, bare_environment, dx_home: Path, depth: int):
    home = dx_home / ("deep" * depth)
    original = bare_environment | {"DX_HOME": str(home)}
    assert run_cli("migrate", env=original).returncode == 0
    copied = original | {"DX_HOME": str(home.with_name("copy"))}
    with held(original) as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE before_the_copy ()")
        # As a snapshot does: the server is at work, and its socket is no file to copy.
        subprocess.run(["cp", "-r", str(home), copied["DX_HOME"]], check=False, capture_output=True)
        with held(copied) as url_of_copy:
            assert folder_of(url).samefile(home / "postgres")
            assert folder_of(url_of_copy).samefile(Path(copied["DX_HOME"]) / "postgres")
            with psycopg.connect(url_of_copy) as connection:
                connection.execute("DROP TABLE before_the_copy")
        with psycopg.connect(url) as connection:
            connection.execute("TABLE before_the_copy")
    assert processes_of(dx_home) == []


@pytest.mark.parametrize("depth", [0, 30], ids=["a socket in the home", "a socket elsewhere"])
def test_a_home_under_two_names_is_one_installation(run_cli: RunCli, bare_environment, dx_home: Path, depth: int):
    home = dx_home / ("deep" * depth)
    home.mkdir(parents=True)
    link = dx_home / "link"
    link.symlink_to(home)
    linked = bare_environment | {"DX_HOME": str(link)}
    with held(bare_environment | {"DX_HOME": str(home)}) as url, held(linked) as same_url:
        assert same_url == url
        assert run_cli("migrate", env=linked).returncode == 0


def test_a_home_that_is_moved_while_its_server_runs_is_not_served_twice(run_cli: RunCli, bare_environment, dx_home):
    """And a new one in its old place is served by its own."""
    with held(bare_environment):
        moved = dx_home.rename(dx_home.with_name("moved"))
        assert run_cli("migrate", env=bare_environment | {"DX_HOME": str(moved)}).returncode == 0
        with held(bare_environment) as url:
            assert folder_of(url).samefile(dx_home / "postgres")
            servers = [one for one in processes_of(dx_home.parent) if "listen_addresses=" in " ".join(command_of(one))]
            assert len(servers) == 2
    assert run_cli("migrate", env=bare_environment | {"DX_HOME": str(moved)}).returncode == 0
    assert processes_of(dx_home.parent) == []


def test_no_shell_reads_the_name_of_a_home(run_cli: RunCli, bare_environment, dx_home: Path):
    """One path with all of the names: whichever way a shell would quote it, one of them would leave a marker."""
    open_to_all = dx_home.parent / "markers"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    dx_home.parent.chmod(0o755)
    home = dx_home
    for number, name in enumerate(
        ("$(touch {})", "`touch {}`", "';touch {};'", '";touch {};"', "a, b%20 \\ü* ${{x}} {}")
    ):
        home /= name.format(open_to_all / str(number))
    env = bare_environment | {"DX_HOME": str(home)}
    with Sandbox(WorldConfig(repositories=1, pull_requests=1, members=2)) as sandbox:
        env |= {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret}
        for command in (("connect", "acme"), ("sync", "acme")):
            done = run_cli(*command, env=env)
            assert done.returncode == 0, done.stderr
    assert (home / "postgres" / "PG_VERSION").exists()
    exported = run_cli("env", env=env).stdout
    show = f'{exported}\nprintf %s "$DX_HOME"'
    assert subprocess.check_output(["bash", "-c", show], text=True) == str(home)
    assert list(open_to_all.iterdir()) == []


def test_a_key_may_be_the_first_thing_in_a_new_home(run_cli: RunCli, bare_environment):
    key = run_cli("api-keys", "create", "first", env=bare_environment).stdout.strip()
    assert f"first  …{key[-4:]}  " in run_cli("api-keys", "list", env=bare_environment).stdout


def test_a_home_whose_name_is_no_name_is_refused(run_cli: RunCli, bare_environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("$HOME/dx", "the variable in it is not expanded"),
        ("${HOME}/dx", "the variable in it is not expanded"),
        ("~no-such-user/dx", "this user does not exist"),
        (f"{tmp_path}/a\nb", "line breaks"),
    ):
        alone(run_cli("status", env=bare_environment | {"DX_HOME": name}), "DX_HOME is ", said)
    assert list(tmp_path.iterdir()) == []


def test_variables_of_libpq_do_not_lead_away_from_the_embedded_database(run_cli: RunCli, bare_environment):
    elsewhere = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(free_port()), "PGSERVICE": "nowhere", "PGOPTIONS": "-cno=1"}
    elsewhere |= {"PGREQUIREAUTH": "scram-sha-256", "PGTARGETSESSIONATTRS": "standby", "PGSSLMODE": "require"}
    env = bare_environment | elsewhere
    assert run_cli("migrate", env=env).returncode == 0
    done = run_cli("status", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    exported = run_cli("env", env=env).stdout
    script = (
        f"{exported}\nexec {sys.executable} -c 'from dagster import DagsterInstance as I; I.get().get_runs_count()'"
    )
    subprocess.run(["bash", "-c", script], env=env, check=True, start_new_session=True)


def test_a_database_whose_creation_was_killed_is_created_anew(dx_home: Path):
    join = f"""
from pathlib import Path
from dx_dagster.warehouse.embedded import EmbeddedServer
EmbeddedServer(Path({str(dx_home / "postgres")!r})).join()
"""

    with subprocess.Popen([sys.executable, "-c", join], start_new_session=True) as first:
        assert wait_until(lambda: any(dx_home.glob("postgres*/PG_VERSION")), every=0.005)
        os.killpg(first.pid, signal.SIGKILL)
    server = EmbeddedServer(dx_home / "postgres", options=("-c fsync=off",))
    server.join()
    server.leave()
    assert [path.parent.name for path in dx_home.glob("postgres*/PG_VERSION")] == ["postgres"]


def test_the_log_of_the_embedded_database_is_cut(dx_home: Path):
    server = EmbeddedServer(dx_home / "postgres", options=("-c fsync=off",))
    server.join()
    log = server.folder / "server.log"
    log.write_text("x" * 11_000_000)
    server.leave()
    server.join()
    try:
        with psycopg.connect(server.url, autocommit=True) as connection, pytest.raises(psycopg.Error):
            connection.execute("SELECT 1 / 0")
        assert "division by zero" in log.read_text()
        assert log.stat().st_size < 1_000_000
        assert log.with_name("server.log.1").stat().st_size >= 11_000_000
    finally:
        server.leave()
        shutil.rmtree(dx_home)
