"""No row depends on a clock of ours: whatever the host's shows, and whatever dates are stored, rows come right."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from dx_dagster.clock import HOST, Clock
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.sandbox.world import World
from dx_dagster.warehouse.schema import metadata
from dx_dagster_tests.comparing import QUERIES
from dx_dagster_tests.delivering import Receiving, installed
from dx_dagster_tests.importer.test_changing_worlds import change
from dx_dagster_tests.importing import KEYS
from dx_dagster_tests.stepped_clock import COMPILER, SteppedClock

# Derived tables have no date of a request.
DATED = [table for table in QUERIES if "synced_at" in metadata.tables[table].columns]
TINY = WorldConfig(seed=6, repositories=2, pull_requests=14, members=4)
YEAR_1 = datetime(1, 1, 1, tzinfo=UTC)
YEAR_2099 = datetime(2099, 1, 1, tzinfo=UTC)
YEAR_9999 = datetime(9999, 12, 31, 23, tzinfo=UTC)


@pytest.fixture
def installation(database_url: str) -> Iterator[Receiving]:
    with installed(database_url, TINY) as made:
        yield made


def execute(installation: Receiving, statement: str) -> int:
    with psycopg.connect(installation.database_url) as connection:
        return connection.execute(statement.encode()).rowcount


def change_everything(world: World) -> None:
    """What no date of Bitbucket's tells (names, opinions, runs), and the usual."""
    with world.lock:
        person = world.people.members[0]
        person.display_name += "!"
        for repository in world.open_repositories:
            world.rename_repository(repository)
            world.comment(world.open_pull_request(repository), user=person)
            running = [one for one in repository.pipelines if one.state != "COMPLETED"]
            for run in running or [world.add_pipeline(repository)]:
                world.finish_pipeline(run, "SUCCESSFUL")
            world.add_pipeline(repository)
        for pull in [one for one in world.pull_requests if one.state == "OPEN"]:
            world.unapprove(pull, world.approve(pull))
            world.approve(pull)


def test_rows_are_right_whatever_the_clocks_of_the_hosts_that_wrote_them(installation, monkeypatch):
    world = installation.sandbox.world
    for ahead, said in (
        (timedelta(days=1), ["clocks differ: this machine's is 24 hours ahead of the database's"]),
        (timedelta(minutes=-3), ["clocks differ: this machine's is 3 minutes behind the database's"]),
        (timedelta(minutes=1), []),
    ):
        monkeypatch.setattr(HOST, "ahead", ahead)
        watcher = Watcher(world)
        change_everything(world)
        installation.deliver(*watcher.deliveries())
        installation.refresh()
        installation.sync()
        assert installation.differences() == {}, ahead
        assert [one.split(", by")[0] for one in installation.warnings if "clock" in one] == said
        installation.warnings.clear()
    for table in DATED:
        dated = "SELECT max(synced_at) <= now() AS past, min(synced_at) > now() - interval '1 h' AS late FROM"
        assert installation.query(f"{dated} {table}") == [{"past": True, "late": True}], table


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_rows_are_right_after_a_sync_on_a_host_that_is_a_day_ahead(installation, bare_environment, tmp_path):
    settings = {
        "DX_DATABASE_URL": installation.database_url,
        "DX_SECRET_KEYS": KEYS,
        "BITBUCKET_API_URL": installation.sandbox.url,
    }
    clock = SteppedClock(tmp_path)
    clock.step(24 * 3600)
    change_everything(installation.sandbox.world)
    done = subprocess.run(
        [sys.executable, "-m", "dx_dagster.cli", "sync", "acme"],
        env=bare_environment | settings | clock.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "this machine's is 24 hours ahead of the database's" in done.stderr, done.stderr
    assert installation.differences() == {}
    change_everything(installation.sandbox.world)
    installation.sync()
    assert installation.differences() == {}


def test_what_was_written_under_a_wrong_clock_is_right_after_the_next_sync(installation):
    for off in ("1 day", "-2 days"):
        for table in DATED:
            assert execute(installation, f"UPDATE {table} SET synced_at = synced_at + interval '{off}'") > 0
        change_everything(installation.sandbox.world)
        installation.sync()
        assert installation.differences() == {}, off
    # What claims to be newer than the truth, within what a date may claim, is left to a full sync.
    dated = "updated_at = now() + interval '1 hour'"
    assert execute(installation, f"UPDATE bitbucket_pulls SET title = 'wrong', {dated}") > 0
    assert execute(installation, f"UPDATE bitbucket_pull_comments SET content = 'wrong', {dated}") > 0
    assert execute(installation, "UPDATE bitbucket_users SET name = 'wrong', synced_at = 'infinity'") > 0
    installation.sync(full=True)
    assert installation.differences() == {}


def date(world: World, absurd: datetime, number: int) -> Callable[[], None]:
    """A pull request changes, and its new comment, an approval and two new runs get this date; returns what corrects
    them.
    """
    with world.lock:
        closed = [one for one in world.pull_requests if one.state == "MERGED"][number]
        opened = world.open_pull_request(closed.repository)
        comment = world.comment(closed, user=world.people.members[0])
        approver = world.approve(opened)
        runs = [world.add_pipeline(closed.repository), world.add_pipeline(closed.repository)]
        world.finish_pipeline(runs[0], "SUCCESSFUL")
        said, approved = closed.activity[-1], opened.activity[-1]
        before = (closed.updated_on, comment.updated_on, approved.at, runs[0].created_on, runs[1].created_on)

        def put(changed: datetime, written: datetime, judged: datetime, *created: datetime) -> None:
            closed.updated_on, comment.created_on, comment.updated_on = changed, written, written
            said.at, approved.at, opened.participants[approver].participated_on = written, judged, judged
            closed.participants[world.people.members[0]].participated_on = written
            for run, moment in zip(runs, created, strict=True):
                run.created_on = moment
                run.version += 1
            closed.touch(world.now, moves=False)
            opened.touch(world.now, moves=False)

        put(absurd, absurd, absurd, absurd, absurd)
    return lambda: put(*before)


def test_a_row_with_an_absurd_date_is_imported_and_corrected_and_breaks_no_later_sync(database_url):
    chances = random.Random(1)
    with Sandbox(TINY) as sandbox:
        installation = Receiving(database_url, sandbox)
        corrections = [date(sandbox.world, YEAR_1, 0)]  # no list of what changed of late holds that
        installation.sync()
        assert installation.differences() == {}
        corrections += [date(sandbox.world, YEAR_2099, 1), date(sandbox.world, YEAR_9999, 2)]
        for _ in range(2):
            installation.sync()
            assert installation.differences() == {}
            change(sandbox.world, chances)
        for correct in corrections:
            correct()
        installation.sync()
        assert installation.differences() == {}
        installation.sync(full=True)
        assert installation.differences() == {}


def test_a_workspace_of_the_year_1_is_imported_again_and_again(database_url):
    with Sandbox(TINY) as sandbox:
        for pull in sandbox.world.pull_requests:
            pull.created_on = pull.updated_on = YEAR_1
            for number, entry in enumerate(pull.activity):
                entry.at = YEAR_1 + timedelta(milliseconds=number)
                if entry.comment:
                    entry.comment.created_on = entry.comment.updated_on = entry.at
        for run in (run for repository in sandbox.world.open_repositories for run in repository.pipelines):
            run.created_on = YEAR_1
        installation = Receiving(database_url, sandbox)
        for how in ({}, {"reconcile": timedelta(days=3)}, {"full": True}):
            installation.sync(**how)
            assert installation.differences() == {}


def test_a_clock_never_swaps_the_order_of_two_requests_and_follows_the_server():
    clock = Clock()
    clock.set(1_000_000.0, 10.0, 12.0)
    before = clock.now()
    clock.set(1_000_000.5, 11.0, 11.5)  # which agrees: nothing moves
    assert timedelta() <= clock.now() - before < timedelta(seconds=1)
    clock.set(1_000_100.0, 11.0, 11.5)
    assert timedelta(seconds=99) < clock.now() - before < timedelta(seconds=101)
