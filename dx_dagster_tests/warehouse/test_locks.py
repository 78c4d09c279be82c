"""A lock that is lost is noticed: no import writes once another one has taken over, and no live run is called dead."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio.lowlevel
import dagster as dg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ReadOnlySqlTransaction

from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Sandbox, truth
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.sandbox.faults import Faults
from dx_dagster.warehouse import poolers, runs
from dx_dagster.warehouse.budgets import SharedLedger
from dx_dagster.warehouse.database import LockLostError, Warehouse, WarehouseError
from dx_dagster.warehouse.locks import Claim
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster_tests.bad_input.telling import alone, paragraph
from dx_dagster_tests.commands import Done
from dx_dagster_tests.comparing import differences
from dx_dagster_tests.conftest import wait_until
from dx_dagster_tests.delivering import SMALL, installed
from dx_dagster_tests.delivering import inbox as inbox_rows
from dx_dagster_tests.importing import KEYS

LOCKS = "application_name = 'dx-dagster lock' AND datname = current_database()"
SLOW = 1.0  # seconds for each answer of the sandbox: an import takes as long as the test wants it to
PATIENCE = 90.0


class Observer:
    """What an administrator sees and does, over a connection of his own."""

    def __init__(self, database_url: str) -> None:
        self.connection = psycopg.connect(database_url, autocommit=True)

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        return self.connection.execute(statement.encode(), parameters or None).fetchall()

    def one(self, statement: str, *parameters: Any) -> Any:
        rows = self.rows(statement, *parameters)
        return rows[0][0] if rows else None

    def held(self) -> set[int]:
        """The server's processes that hold one of our locks."""
        held = f"SELECT pid FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND {LOCKS}"
        return {row[0] for row in self.rows(held)}

    def end_locks(self, role: str = "%") -> set[int]:
        """Ends their connections as an administrator or a firewall would."""
        ended = f"SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {LOCKS} AND usename LIKE %s"
        return {row[0] for row in self.rows(ended, role)}

    def taken_over(self, role: str, token: Any) -> bool:
        """Ends the role's locks; whether somebody has taken over from the import with that token."""
        self.end_locks(role)
        return bool(self.token() != token)

    def token(self) -> Any:
        return self.one("SELECT token FROM import_locks WHERE workspace = 'acme'")

    def pulls(self) -> int:
        return int(self.one("SELECT count(*) FROM bitbucket_pulls"))


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    made = Observer(database_url)
    yield made
    made.connection.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL, faults=Faults()) as running:
        yield running


@pytest.fixture
def connected(run_cli, environment: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret}
    assert run_cli("connect", "acme", env=env).returncode == 0
    sandbox.faults.latency = SLOW
    return env


@contextmanager
def syncing(run_cli, env: Mapping[str, str]) -> Iterator[Callable[[], Done]]:
    """A sync under way; call what is yielded for how it ended."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run_cli, "sync", "acme", env=env).result


@pytest.fixture
def first_role(postgres) -> Iterator[str]:
    """A role by which one process's connections can be told from another's."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE the_first SUPERUSER LOGIN")
        yield "the_first"
        connection.execute("DROP ROLE the_first")


def test_an_import_whose_workspace_another_took_over_stops_before_it_writes_again(
    connected, run_cli, observer, sandbox, first_role
):
    as_first = connected | {"DX_DATABASE_URL": connected["DX_DATABASE_URL"].replace("postgres@", f"{first_role}@")}
    with syncing(run_cli, as_first) as first:
        assert wait_until(lambda: observer.pulls() > 0, PATIENCE)
        token = observer.token()
        with syncing(run_cli, connected) as second:
            # As often as the first one takes its lock again, it loses it, until the second one has it.
            assert wait_until(lambda: observer.taken_over(first_role, token), PATIENCE, 0.05)
            sandbox.faults.latency = 0
            paragraph(first(), "The connection that held the lock of workspace acme was lost", "this run stops")
            took_over = second()
    assert took_over.returncode == 0, took_over.stderr
    assert differences(connected["DX_DATABASE_URL"], truth(sandbox.world)) == {}
    assert observer.rows("SELECT status FROM dagster.runs ORDER BY id") == [("FAILURE",), ("SUCCESS",)]


def test_a_lock_that_is_lost_and_free_is_taken_again_and_the_import_goes_on(connected, run_cli, observer, sandbox):
    with syncing(run_cli, connected) as sync:
        assert wait_until(lambda: observer.pulls() > 0 and len(observer.held()) == 2, PATIENCE)
        token, lost = observer.token(), observer.end_locks()
        assert len(lost) == 2
        assert wait_until(lambda: len(observer.held() - lost) == 2, PATIENCE)
        (run_id,) = observer.rows("SELECT run_id FROM dagster.runs")[0]
        assert without_process(connected["DX_DATABASE_URL"], run_id) == []
        given_up = run_cli("sync", "acme", "--no-wait", env=connected)
        assert "Another process is importing workspace acme" in given_up.stderr
        assert observer.token() == token
        sandbox.faults.latency = 0
        done = sync()
    assert done.returncode == 0, done.stderr
    assert differences(connected["DX_DATABASE_URL"], truth(sandbox.world)) == {}


def without_process(url: str, *names: str) -> list[str]:
    async def look() -> list[str]:
        async with Warehouse(url) as warehouse:
            return await runs.without_process(warehouse, names)

    return asyncio.run(look())


async def take_over(url: str, observer: Observer) -> None:
    """What another import does when the one at work has lost its lock."""
    async with Warehouse(url) as other:
        is_free = False
        while not is_free:
            observer.end_locks()
            async with other.importing("Acme") as is_free:
                pass


def test_nothing_of_a_transaction_is_stored_once_another_import_has_begun(database_url, observer):
    async def store(
        warehouse: Warehouse, name: str, meanwhile: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
    ) -> None:
        async with warehouse.transaction() as transaction:
            await transaction.execute("INSERT INTO budgets (name) VALUES (%s)", [name])
            await meanwhile()

    async def work() -> None:
        async with Warehouse(database_url) as warehouse, warehouse.importing("acme") as is_free:
            assert is_free
            await store(warehouse, "before")
            with pytest.raises(LockLostError, match="workspace acme was lost"):
                await store(warehouse, "meanwhile", lambda: take_over(database_url, observer))
            with pytest.raises(LockLostError):
                await store(warehouse, "after")
            with pytest.raises(LockLostError):
                await inbox.take(warehouse, "acme", 1)
            # What was spent is spent whoever imports, and anybody may look.
            await SharedLedger(warehouse).learn("spent", 1000)
            assert await warehouse.row("SELECT FROM budgets WHERE name = 'before'") is not None
            with pytest.raises(ReadOnlySqlTransaction):
                await warehouse.row("DELETE FROM budgets RETURNING name")
        async with Warehouse(database_url) as warehouse:
            await store(warehouse, "by nobody's import")

    asyncio.run(work())
    assert {row[0] for row in observer.rows("SELECT name FROM budgets")} == {"before", "spent", "by nobody's import"}


def test_who_takes_over_waits_for_the_transaction_that_has_looked_and_not_ended(database_url, observer):
    with psycopg.connect(database_url) as last, psycopg.connect(database_url, autocommit=True) as keeper:
        claim = Claim("acme")
        claim.make(keeper)
        last.execute("INSERT INTO budgets (name) VALUES ('at last')")
        last.execute(claim.is_ours)

        async def take_over() -> list[Any]:
            async with Warehouse(database_url) as warehouse, warehouse.importing("acme") as is_free:
                assert is_free
                return await warehouse.rows("SELECT name FROM budgets")

        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(asyncio.run, take_over())
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            assert wait_until(lambda: observer.one(waits) == 1, PATIENCE, 0.05)
            assert not seen.done()
            last.commit()
            assert [row.name for row in seen.result(PATIENCE)] == ["at last"]


@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
@pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer")
def test_a_refresh_whose_workspace_another_took_over_leaves_its_deliveries_to_it(database_url, observer, monkeypatch):
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    with installed(database_url, SMALL) as installation, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("DX_DATABASE_URL", database_url)
        monkeypatch.setenv("DX_SECRET_KEYS", KEYS)
        monkeypatch.setenv("DX_WEBHOOKS_LINGER", "0")  # or the same run would apply them after all
        monkeypatch.setenv("BITBUCKET_API_URL", installation.sandbox.url)
        watcher = Watcher(installation.sandbox.world)
        for _ in range(20):
            installation.sandbox.world.step()
        installation.deliver(*watcher.deliveries())
        installation.sandbox.faults.latency = SLOW
        instance.add_dynamic_partitions("workspaces", ["acme"])
        job = defs.resolve_job_def("refresh_workspaces")
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(job.execute_in_process, instance=instance, raise_on_error=False)
            assert wait_until(lambda: observer.one("SELECT max(attempts) FROM webhook_events") == 1, PATIENCE, 0.05)
            asyncio.run(take_over(database_url, observer))
            result = ended.result(PATIENCE)
        (failure,) = result.filter_events(lambda event: event.is_step_failure)
        told = failure.step_failure_data.user_failure_data
        assert told is not None
        assert "the lock of workspace acme was lost" in str(told.description)
        assert {row["error"] for row in inbox_rows(database_url)} == {None}
        installation.sandbox.faults.latency = 0
        installation.let_retries_come()
        assert installation.refresh().failed == 0
        assert installation.differences() == {}


class Wire:
    """Connections through a port of its own to the database's socket, and what happens to wires."""

    def __init__(self, database_url: str) -> None:
        known = conninfo_to_dict(database_url)
        self._socket = f"{known['host']}/.s.PGSQL.{known.get('port', 5432)}"
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://postgres@127.0.0.1:{self._server.getsockname()[1]}/{known['dbname']}?sslmode=disable"
        self._ends: list[tuple[socket.socket, socket.socket]] = []
        self._silent: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """What a firewall does that forgets connections: the server sees them end, and the client hears no more."""
        for client, server in list(self._ends):
            self._silent.add(client)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        for ends in self._ends:
            for one in ends:
                with suppress(OSError):  # wakes the thread that carries
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._socket)
                self._ends.append((client, server))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(client, one, other), daemon=True).start()

    def _carry(self, client: socket.socket, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if client not in self._silent:
                    other.sendall(data)
            if client not in self._silent:
                other.shutdown(socket.SHUT_RDWR)


def test_a_connection_that_falls_silent_is_noticed_and_its_lock_taken_again(database_url, observer, caplog):
    caplog.set_level(logging.WARNING)
    wire = Wire(database_url)

    async def work() -> float:
        async with Warehouse(wire.url) as warehouse, warehouse.importing("acme") as is_free:
            assert is_free
            lost, began = observer.held(), time.monotonic()
            wire.fall_silent()
            while not observer.held() - lost:
                await anyio.sleep(0.1)
                assert time.monotonic() - began < PATIENCE
            return time.monotonic() - began

    assert asyncio.run(work()) < PATIENCE
    wire.close()
    assert [message.partition(" is ")[2] for message in caplog.messages] == [
        "lost; the lock is taken again if it is free.",
        "held again.",
    ]


class Bouncer:
    """PgBouncer before the tests' server."""

    def __init__(self, database_url: str, folder: Path, settings: dict[str, Any]) -> None:
        known, port = conninfo_to_dict(database_url), free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/{known['dbname']}?sslmode=disable"
        every = {"listen_addr": "127.0.0.1", "listen_port": port, "auth_type": "any", "unix_socket_dir": ""} | settings
        lines = [f"* = host={known['host']} port={known.get('port', 5432)} user=postgres", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in every.items()]
        configuration = folder / "pgbouncer.ini"
        configuration.write_text("[databases]\n" + "\n".join(lines))
        # It refuses to run as root, and the socket is open to its owner alone.
        owner = ["--user", Path(str(known["host"])).owner()] if os.getuid() == 0 else []
        command = [str(PGBOUNCER), "--quiet", *owner, str(configuration)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(
    PGBOUNCER is None and "CI" not in os.environ, reason="pgbouncer is not installed (apt-get install pgbouncer)"
)


@pytest.fixture
def pooled(database_url: str) -> Iterator[Callable[..., str]]:
    """The address of the database through a pooler with these settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> str:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dx-pgbouncer-")))
            folder.chmod(0o755)  # PgBouncer becomes another user where we are root
            bouncer = Bouncer(database_url, folder, settings)
            stack.callback(bouncer.process.wait)
            stack.callback(bouncer.process.kill)
            assert wait_until(bouncer.answers, PATIENCE)
            return bouncer.url

        yield start


@needs_pgbouncer
def test_a_pooler_that_changes_servers_between_transactions_is_refused(pooled, run_cli, environment, observer):
    for settings in (
        {"pool_mode": "transaction"},
        {"pool_mode": "transaction", "default_pool_size": 1},
        {"pool_mode": "transaction", "server_round_robin": 1, "min_pool_size": 3},
        {"pool_mode": "statement"},
    ):
        url = pooled(**settings)
        use_some_servers(url, 3)
        assert "pool in session mode" in (poolers.why_unfit(url) or ""), settings
    url = pooled(pool_mode="transaction")
    said = run_cli("migrate", env=environment | {"DX_DATABASE_URL": url})
    alone(said, "DX_DATABASE_URL leads to a connection pooler", "pool in session mode")

    async def work() -> None:
        async with Warehouse(url) as warehouse, warehouse.importing("acme"):
            pass

    with pytest.raises(WarehouseError, match="pool in session mode"):
        asyncio.run(work())
    assert observer.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


@needs_pgbouncer
def test_a_pooler_in_session_mode_holds_locks_as_the_server_does(pooled, observer):
    url = pooled(pool_mode="session")
    use_some_servers(url, 3)

    async def work() -> None:
        async with Warehouse(url) as warehouse, warehouse.importing("acme") as is_free:
            assert is_free
            async with Warehouse(url) as other, other.importing("acme") as is_free_again:
                assert not is_free_again
            async with warehouse.transaction() as transaction:
                await transaction.execute("INSERT INTO budgets (name) VALUES ('stored')")

    asyncio.run(work())
    assert observer.one("SELECT count(*) FROM budgets") == 1
    assert wait_until(lambda: observer.held() == set())


def use_some_servers(url: str, count: int) -> None:
    """Leaves the pooler with connections to the server that nobody uses."""
    clients = [psycopg.connect(url, autocommit=True) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda client: client.execute("SELECT pg_sleep(0.2)"), clients))
    for client in clients:
        client.close()
