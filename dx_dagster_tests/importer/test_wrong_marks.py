"""A stored time that lies in the future, as a wrong clock or a wrong date of Bitbucket's leaves it, is no end."""

import random

import psycopg
import pytest

from dx_dagster.sandbox import WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster_tests.delivering import Receiving, installed
from dx_dagster_tests.importer.test_changing_worlds import change

TINY = WorldConfig(seed=5, repositories=3, pull_requests=24, members=5)
MARKS = ("sync_marks", "pull_marks")


@pytest.fixture
def installation(database_url):
    with installed(database_url, TINY) as made:
        yield made


def put_into_2999(installation: Receiving, table: str, column: str) -> int:
    with psycopg.connect(installation.database_url) as connection:
        return connection.execute(f"UPDATE {table} SET {column} = '2999-01-01'".encode()).rowcount


def test_no_mark_in_the_year_2999_makes_a_later_sync_skip_anything(installation):
    world, chances = installation.sandbox.world, random.Random(5)
    marks = installation.query(
        "SELECT table_name AS of, column_name AS name FROM information_schema.columns "
        f"WHERE table_name IN {MARKS} AND data_type = 'timestamp with time zone'"
    )
    assert len(marks) >= 10
    for mark in (*marks, {"of": "bitbucket_workspaces", "name": "since"}):
        assert put_into_2999(installation, mark["of"], mark["name"]) > 0
        for _ in range(4):
            change(world, chances)
        pull = chances.choice([one for one in world.pull_requests if one.state == "OPEN"])
        world.comment(pull)
        world.approve(pull)
        world.add_pipeline(pull.repository)
        installation.sync()
        assert installation.differences() == {}, mark

    # Nor does a delivery, a budget or an unfinished run wait for a thousand years.
    watcher = Watcher(world)
    world.comment(next(one for one in world.pull_requests if one.state == "OPEN"))
    installation.deliver(*watcher.deliveries())
    for table, column in (
        *(("webhook_events", "next_attempt_at"), ("budgets", "rests_until"), ("budgets", "careful_until")),
        *(("bitbucket_pipelines", "asked_at"), ("connections", "last_synced_at")),
    ):
        assert put_into_2999(installation, table, column) > 0
    assert installation.refresh().outcomes["applied"] == 1
    assert installation.differences() == {}
