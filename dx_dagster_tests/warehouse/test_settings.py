"""What an administrator sets for a database changes nothing of ours; a database that cannot serve is refused."""

import asyncio
import logging
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx
import psycopg
import pytest
from psycopg import sql

from dx_dagster.api.app import create_app
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.sandbox.faults import Faults
from dx_dagster.settings import Settings
from dx_dagster.warehouse import connecting, migrations, poolers, runs
from dx_dagster.warehouse.blocking import telling_who_blocks
from dx_dagster.warehouse.database import Warehouse, WarehouseError
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster.webhooks.address import PATH
from dx_dagster_tests.bad_input.telling import alone
from dx_dagster_tests.commands import Started
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.conftest import wait_until
from dx_dagster_tests.delivering import SECRET, Receiving, give_secret, inbox, receiving

TINY = WorldConfig(repositories=2, pull_requests=10, members=4)
# Each of them would end an import, or change its rows, were it in force.
HOSTILE = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "statement_timeout": "50ms",
    "lock_timeout": "1ms",
    "transaction_timeout": "100ms",
    "idle_session_timeout": "100ms",
    "idle_in_transaction_session_timeout": "100ms",
}


class Administrator:
    """Who may change what holds for all sessions of a database."""

    def __init__(self, server: EmbeddedServer, url: str) -> None:
        self.server, self.database = server, url.partition("@/")[2].partition("?")[0]

    def set(self, settings: dict[str, str]) -> None:
        for name, value in settings.items():
            self._alter(sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(value)))

    def reset(self) -> None:
        self._alter(sql.SQL("RESET ALL"))

    def _alter(self, how: sql.Composable) -> None:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(self.database), how))


def test_imports_and_deliveries_take_no_notice_of_the_databases_settings(postgres, database_url):
    administrator = Administrator(postgres, database_url)
    administrator.set(HOSTILE)
    with Sandbox(TINY, faults=Faults(latency=0.01)) as sandbox:
        installation = Receiving(database_url, sandbox)
        give_secret(installation.settings, installation.slug, SECRET)
        with receiving(installation.settings) as installation.receiver:
            installation.sync()
            watcher = Watcher(sandbox.world)
            for _ in range(20):
                sandbox.world.step()
            installation.deliver(*watcher.deliveries())
            result = installation.refresh()
            assert httpx.get(installation.receiver.replace(PATH, "/readyz")).json() == {"ok": True}
        administrator.reset()
        assert result.failed == 0, installation.warnings
        assert {row["error"] for row in inbox(database_url)} == {None}
        installation.sync()
        assert installation.differences() == {}


def test_locks_outlive_the_databases_time_out_for_idle_sessions(postgres, database_url):
    Administrator(postgres, database_url).set(HOSTILE)

    async def work() -> None:
        async with (
            Warehouse(database_url) as warehouse,
            warehouse.lock("one") as is_free,
            runs.at_work(warehouse, "run"),
        ):
            assert is_free
            await anyio.sleep(0.3)
            async with warehouse.lock("one") as is_free_again:
                assert not is_free_again
            assert await runs.without_process(warehouse, ["run"]) == []

    asyncio.run(work())


def test_a_statement_timeout_of_a_millisecond_refuses_no_connection(postgres, database_url):
    Administrator(postgres, database_url).set({"statement_timeout": "1ms"})

    def timeouts(connections: int) -> set[str]:
        said: set[str] = set()
        for _ in range(connections):
            assert poolers.why_unfit.__wrapped__(database_url) is None
            with connecting.connect(database_url) as connection:
                said.update(connection.execute("SELECT current_setting('statement_timeout')").fetchone() or ())
        return said

    with ThreadPoolExecutor(8) as at_once:
        assert set().union(*at_once.map(timeouts, [40] * 8)) == {"0"}


def test_dagsters_storage_takes_no_notice_of_them_either(postgres, run_cli, environment, database_url):
    administrator = Administrator(postgres, database_url)
    administrator.set(HOSTILE)
    with Sandbox(TINY) as sandbox:
        env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret}
        # In the address too, before ours.
        env["DX_DATABASE_URL"] += "&options=-cDateStyle%3DSQL%20-cstatement_timeout%3D20"
        for command in ("connect", "sync"):
            done = run_cli(command, "acme", env=env)
            assert done.returncode == 0, done.stderr
        administrator.reset()
        assert differences(database_url, truth(sandbox.world)) == {}
    with psycopg.connect(database_url) as connection:
        runs = "SELECT status, now() AT TIME ZONE 'UTC' - create_timestamp < interval '1 hour' FROM dagster.runs"
        assert connection.execute(runs).fetchall() == [("SUCCESS", True)]


@pytest.fixture
def latin1_url(postgres: EmbeddedServer) -> Iterator[str]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
        )
        yield postgres.url.replace("/postgres?", "/latin1?")
        connection.execute("DROP DATABASE latin1 WITH (FORCE)")


def test_a_database_that_is_not_in_utf8_is_refused(run_cli, environment, latin1_url):
    for command in ("migrate", "status"):
        said = run_cli(command, env=environment | {"DX_DATABASE_URL": latin1_url})
        alone(said, "DX_DATABASE_URL has the encoding LATIN1", "ENCODING 'UTF8'")


@pytest.fixture(scope="module")
def standby_url() -> Iterator[str]:
    """The address of a database with all tables on a server that is a standby."""
    folder = Path(tempfile.mkdtemp(prefix="dx-standby-"))
    server = EmbeddedServer(folder / "postgres", options=("-c fsync=off",))
    server.join()
    migrations.upgrade(server.url)
    server.leave()
    (server.folder / "standby.signal").touch()
    server.join()
    yield server.url
    server.leave()
    shutil.rmtree(folder)


def test_a_standby_is_refused_and_not_ready(standby_url):
    settings = Settings.model_validate({"DX_DATABASE_URL": standby_url})

    async def ready() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get("/readyz")

    async def open_warehouse() -> None:
        async with Warehouse(standby_url):
            pass

    assert asyncio.run(ready()).json() == {"ok": False, "not_ready": "database"}
    with pytest.raises(WarehouseError, match="on a standby server"):
        asyncio.run(open_warehouse())
    with pytest.raises(WarehouseError, match="on a standby server"):
        migrations.upgrade(standby_url)


def test_an_upgrade_that_waits_for_a_lock_says_who_holds_it(database_url, caplog):
    caplog.set_level(logging.WARNING)
    with (
        psycopg.connect(database_url, application_name="nightly report") as holder,
        psycopg.connect(database_url) as waiting,
    ):
        holder.execute("SELECT FROM bitbucket_pulls")
        pid = holder.info.backend_pid
        blocked = threading.Thread(target=waiting.execute, args=["LOCK TABLE bitbucket_pulls"])
        with telling_who_blocks(database_url, waiting.info.backend_pid, look_every=0.1):
            blocked.start()
            while not caplog.messages:
                blocked.join(0.05)
            holder.rollback()
            blocked.join()
    (said,) = caplog.messages
    assert f"process {pid} of the database server (nightly report as postgres)" in said
    assert "idle in transaction" in said


def test_a_sync_that_waits_for_a_lock_says_who_holds_it_and_goes_on(run_cli, environment, database_url):
    with Sandbox(TINY) as sandbox:
        env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret}
        assert run_cli("connect", "acme", env=env).returncode == 0
        with psycopg.connect(database_url, application_name="nightly report") as holder:
            holder.execute("LOCK TABLE bitbucket_pulls IN SHARE MODE")
            pid = holder.info.backend_pid
            with Started(["sync", "acme"], env) as syncing:
                assert wait_until(lambda: "waits for a lock" in syncing.errors, 120), syncing.errors
                holder.rollback()
                done = syncing.ended(120)
            said = done.stderr
            assert done.returncode == 0, said
        assert f"process {pid} of the database server (nightly report as postgres) holds" in said
        assert "idle in transaction" in said
        assert "LOCK TABLE bitbucket_pulls IN SHARE MODE" in said
        assert differences(database_url, truth(sandbox.world)) == {}


def test_the_receiver_says_whose_lock_held_up_what_it_sends_back(database_url, caplog):
    with Sandbox(TINY) as sandbox:
        installation = Receiving(database_url, sandbox)
        give_secret(installation.settings, installation.slug, SECRET)
        watcher = Watcher(sandbox.world)
        while not (made := watcher.deliveries()):
            sandbox.world.step()
        with (
            receiving(installation.settings) as installation.receiver,
            psycopg.connect(database_url, application_name="nightly report") as holder,
        ):
            holder.execute("LOCK TABLE webhook_events")
            with pytest.raises(AssertionError):
                installation.deliver(made[0])
            holder.rollback()
            installation.deliver(made[0])
    said = [one for one in caplog.messages if one.startswith("The webhook receiver waits for a lock that process ")]
    assert said
    assert "(nightly report as postgres) holds" in said[0]


def test_variables_that_libpq_sends_along_change_nothing_of_dagsters(run_cli, environment, database_url):
    theirs = {"PGTZ": "Asia/Kathmandu", "PGDATESTYLE": "German, DMY", "PGCLIENTENCODING": "LATIN1"}
    theirs |= {"PGOPTIONS": "-cstatement_timeout=1 -cTimeZone=Asia/Kathmandu -csearch_path=nowhere"}
    with Sandbox(TINY) as sandbox:
        env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret} | theirs
        for command in ("connect", "sync"):
            done = run_cli(command, "acme", env=env)
            assert done.returncode == 0, done.stderr
        assert differences(database_url, truth(sandbox.world)) == {}
    printed = run_cli("env", env=env).stdout
    show = (
        "from dagster import DagsterInstance; from sqlalchemy import text\n"
        "with DagsterInstance.get().run_storage.connect() as connection:\n"
        "  for name in ('TimeZone', 'DateStyle', 'client_encoding', 'search_path', 'statement_timeout'):\n"
        "    print(connection.execute(text('SHOW ' + name)).scalar_one())"
    )
    script = f"{printed}\nexec {shlex.quote(sys.executable)} -c {shlex.quote(show)}"
    shown = subprocess.check_output(["bash", "-c", script], env=env, text=True, start_new_session=True)
    assert shown.splitlines() == ["UTC", "ISO, MDY", "UTF8", "dagster", "0"]
