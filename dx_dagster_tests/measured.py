"""Measures of a workspace, a repository and a team for the tests of pages, all different from one another."""

from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Date, Text

from dx_dagster.warehouse.schema.measures import weekly_measures

WORKSPACE = "00000000-0000-0000-0000-000000000001"
WEEKS = 10
KEYS = {"scope", "scope_id", "week", "workspace_id", "repo_id", "team_id"}


def store(database_url: str) -> date:
    """Stores figures of the last ten weeks, and nothing of the week before the last; the Monday of this week."""
    with psycopg.connect(database_url) as connection:
        this_week: date
        [[this_week]] = connection.execute("SELECT date_trunc('week', now() AT TIME ZONE 'UTC')::date").fetchall()
        connection.execute(
            "INSERT INTO bitbucket_workspaces (id, source_id, slug, name) VALUES (%s, '{w}', 'acme', 'Acme')",
            [WORKSPACE],
        )
        connection.execute(
            "INSERT INTO bitbucket_repositories (id, source_id, workspace_id, name, slug, api_accessible, "
            "inaccessible_reason) VALUES (gen_random_uuid(), '{r}', %s, 'Shop', 'shop', false, '=1+1 <b>403</b>')",
            [WORKSPACE],
        )
        [[repository]] = connection.execute(
            "INSERT INTO repos (source_table_id, name, source) "
            "SELECT id, name, 'bitbucket' FROM bitbucket_repositories RETURNING id"
        ).fetchall()
        [[team]] = connection.execute(
            "INSERT INTO dx_teams (source_id, name) VALUES ('Shop & Co/Platform', 'Platform') RETURNING id"
        ).fetchall()
        for place, (scope, key) in enumerate([("workspace", WORKSPACE), ("repository", repository), ("team", team)], 1):
            for weeks_ago in (ago for ago in range(WEEKS) if ago != 1):
                _store_week(connection, scope, str(key), this_week - timedelta(weeks=weeks_ago), place)
        connection.execute(
            "INSERT INTO pull_request_measures (pull_request_id, repo_id, dx_user_id, merged, week, deployed_at, "
            "cycle_time, lead_time, cycle_time_business_hours, source_table_id, source_table_repo_id) "
            "SELECT n, %s, 1, now(), %s, now(), n * 3600, n * 7200, n * 60, gen_random_uuid(), gen_random_uuid() "
            "FROM generate_series(1, 3) n",
            [repository, this_week],
        )
    return this_week


def _store_week(connection: psycopg.Connection[Any], scope: str, key: str, week: date, place: int) -> None:
    """Each column has another value in each week and scope; no count is below five."""
    number = week.toordinal() // 7 % 97
    values: dict[str, Any] = {"scope": scope, "scope_id": key, "week": week}
    for order, column in enumerate(one for one in weekly_measures.columns if one.name not in KEYS):
        assert not isinstance(column.type, Date | Text)
        if column.name.endswith("_count"):
            values[column.name] = 5 + number * place + order
        elif column.name.endswith(("_share", "_rate", "_gini")):
            values[column.name] = (number * place + order) % 89 / 100 + 0.001234
        else:
            values[column.name] = number * 1000 * place + order * 100 + 0.25
    names = SQL(", ").join(map(Identifier, values))
    marks = SQL(", ").join(map(SQL("%({})s").format, map(SQL, values)))
    connection.execute(SQL("INSERT INTO weekly_measures ({}) VALUES ({})").format(names, marks), values)
