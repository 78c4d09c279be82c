"""A database that goes away under running services: what is said of it, and what the services do."""

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dx_dagster.cli import supervisor
from dx_dagster.cli.database_watch import DatabaseWatch
from dx_dagster.cli.supervisor import Service, Supervisor
from dx_dagster.settings import Settings
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.conftest import wait_until


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """A PostgreSQL of somebody's own, to be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="dx-own-"))
    server = EmbeddedServer(folder / "postgres", options=("-c fsync=off",))
    server.join()
    yield server
    server.leave()
    shutil.rmtree(folder)


@pytest.fixture
def settings(own_server: EmbeddedServer, dx_home: Path) -> Settings:
    return Settings.model_validate({"DX_HOME": str(dx_home), "DX_DATABASE_URL": own_server.url})


def test_an_outage_is_reported_once_and_when_it_is_over(own_server: EmbeddedServer, settings: Settings):
    said: list[str] = []
    with closing(DatabaseWatch(settings, own_server.url, said.append)) as watch:
        for outage in range(6):
            assert watch.look(now=True)
            own_server.leave()
            assert not watch.look(now=True)
            assert len(said) == min(2 * outage, 10), "a short one is not worth a line"
            for _ in range(5):
                assert not watch.look(now=True)
            own_server.join()
            assert watch.look(now=True)
    assert len(said) == 10
    assert said[0].startswith("The database does not answer: connection to server on socket ")
    assert said[0].endswith(". The services wait for it.")
    assert said[1].startswith("The database answers again, after ")
    assert said[8].endswith("Further failures within 10 minutes are not reported.")


def test_services_wait_for_the_database_and_a_silent_one_is_restarted(
    own_server: EmbeddedServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(supervisor, "_SECONDS_BETWEEN_PROBES", 0.1)
    folder, life = settings.home / "logs", [True]
    folder.mkdir(parents=True)
    needs = f"open({str(folder / 'started')!r}, 'a').write('x'); import psycopg, time; "
    needs += f"c = psycopg.connect({own_server.url!r})\nwhile c.execute('SELECT 1'): time.sleep(0.1)"
    service = Service("needy", (sys.executable, "-c", needs), shows_life=lambda: life[0], silent_probes=3)

    def starts() -> int:
        return len((folder / "started").read_text()) if (folder / "started").exists() else 0

    def watch() -> None:
        with pytest.raises(IndexError):  # how the test ends it
            together.watch(database)

    with (
        closing(DatabaseWatch(settings, own_server.url)) as database,
        Supervisor(folder, 10**6, {}, folder) as together,
    ):
        together.start(service)
        assert wait_until(lambda: starts() == 1)
        watching = threading.Thread(target=watch)
        watching.start()
        own_server.leave()
        assert wait_until(lambda: "restart when the database answers" in capsys.readouterr().out)
        assert starts() == 1
        own_server.join()
        assert wait_until(lambda: starts() == 2)
        life[0] = False
        assert wait_until(lambda: "needy has shown no sign of life for " in capsys.readouterr().out)
        life.clear()
        watching.join(10)
        assert not watching.is_alive()
