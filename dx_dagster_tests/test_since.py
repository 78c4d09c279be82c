"""`sync --since` means the moment that was given."""

from datetime import UTC, datetime

import psycopg

from dx_dagster_tests.connecting import TOKEN


def test_a_time_with_an_offset_is_that_moment(run_cli, environment, sandbox, database_url):
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": TOKEN}
    assert run_cli("connect", "acme", env=env).returncode == 0
    assert run_cli("sync", "acme", "--since", "2026-01-31T08:00+05:00", env=env).returncode == 0
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT max(since) FROM sync_marks WHERE kind = 'pullrequests'").fetchall()
    assert found == [(datetime(2026, 1, 31, 3, tzinfo=UTC),)]
