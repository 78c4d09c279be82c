"""What is derived from histories in any order: ends, first reviews, durations."""

import random
from datetime import datetime, timedelta

import psycopg
import pytest

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.sandbox.world import World
from dx_dagster.warehouse.imported import review_times
from dx_dagster_tests.importing import Installation

MADE_UP = WorldConfig(seed=21, repositories=4, pull_requests=400, members=12)


def shuffle(world: World, chances: random.Random) -> None:
    """Dates every event anew, before the opening, after the end, all in the same second, as chance has it."""
    for pull in world.pull_requests:
        # A microsecond apart: entries of the same second by one person are told apart by nothing else.
        dated = [_moment(pull, chances) + timedelta(microseconds=n) for n in range(len(pull.activity))]
        for entry, moment in zip(pull.activity, sorted(dated) if chances.random() < 0.3 else dated, strict=True):
            entry.at = moment
            if entry.comment:
                entry.comment.created_on = entry.comment.updated_on = moment
        pull.activity.sort(key=lambda one: one.at)
        for entry in pull.activity:  # an opinion is withdrawn where the participants show none
            entry.taken_back = entry.user in pull.participants and pull.participants[entry.user].state is None
        if pull.state != "OPEN" and chances.random() < 0.15:
            _lose_the_end(pull)
    for repository in world.repositories:
        repository.feed[:] = sorted(
            (entry for pull in repository.pull_requests.values() for entry in pull.activity), key=lambda one: one.at
        )
        for number, entry in enumerate(repository.feed, 1):
            entry.sequence = number


def _moment(pull: PullRequest, chances: random.Random) -> datetime:
    span = (pull.updated_on - pull.created_on) or timedelta(hours=1)
    return chances.choice(
        [
            pull.created_on,
            pull.updated_on,
            pull.created_on - span * chances.random(),
            pull.created_on + span * chances.random(),
            pull.updated_on + span * chances.random(),
        ]
    )


def _lose_the_end(pull: PullRequest) -> None:
    """A merge by push leaves no update that says so."""
    pull.activity = [entry for entry in pull.activity if not (entry.update and entry.update.state == pull.state)]


@pytest.fixture
def histories(database_url):
    with Sandbox(MADE_UP) as sandbox:
        shuffle(sandbox.world, random.Random(21))
        installation = Installation(database_url, sandbox)
        installation.sync()
        yield installation


def test_no_duration_is_negative_and_none_counts_from_before_the_opening(histories):
    assert histories.differences() == {}
    columns = histories.query(
        "SELECT table_name AS of, column_name AS name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND (column_name LIKE 'open\\_to\\_%' OR column_name LIKE 'time\\_since\\_%' OR column_name = 'duration')"
    )
    assert len(columns) >= 5
    for column in columns:
        [found] = histories.query(
            f"SELECT count(*) FILTER (WHERE {column['name']} < 0) AS negative, count({column['name']}) AS known "
            f"FROM {column['of']}"
        )
        assert found["negative"] == 0, column
        assert found["known"] > 0, column
    [wrong] = histories.query("""
        SELECT count(*) FILTER (WHERE merged_at < created_at OR closed_at < created_at) AS ended_before,
               count(*) FILTER (WHERE GREATEST(open_to_first_review, open_to_first_approval, open_to_first_bot_review)
                                      > EXTRACT(epoch FROM closed_at - created_at)) AS reviewed_after,
               count(*) FILTER (WHERE closed_at IS NULL AND state <> 'OPEN') AS without_end, count(*) AS pulls
        FROM bitbucket_pulls""")
    assert (wrong["ended_before"], wrong["reviewed_after"]) == (0, 0)
    assert 0 < wrong["without_end"] < wrong["pulls"] / 10

    # What was derived by older rules, or of somebody who counts as something else now, is mended without a request.
    before = histories.sync().requests
    with psycopg.connect(histories.database_url) as connection:
        connection.execute("UPDATE bitbucket_pulls SET closed_at = created_at - interval '1 day', open_to_merge = -1")
        connection.execute("UPDATE bitbucket_workspaces SET rules = %s", [review_times.RULES - 1])
    assert histories.sync().requests == before
    assert histories.differences() == {}
    with psycopg.connect(histories.database_url) as connection:
        connection.execute("UPDATE bitbucket_users SET counted_as = 'human'")
        connection.execute("UPDATE bitbucket_pulls SET open_to_first_bot_review = NULL")
    assert histories.sync().requests == before
    assert histories.differences() == {}
