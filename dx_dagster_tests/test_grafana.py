"""Grafana's dashboards in deploy/grafana: their queries run, and what they name exists. Grafana itself is not tried."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row
from psycopg.sql import Literal

from dx_dagster.warehouse import analyst_role
from dx_dagster_tests import measured

DEPLOY = Path(__file__).parent.parent / "deploy"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json"))}
_FILTER = re.compile(r"\$__timeFilter\(([^)]*)\)")
_VARIABLE = re.compile(r"\$\{(\w+):sqlstring\}")


def panels(board: str) -> list[dict[str, Any]]:
    return [panel for panel in BOARDS[board]["panels"] if panel["type"] != "row"]


def as_grafana_sends_it(sql: str, variables: dict[str, str], first: date, last: date) -> str:
    """The query with Grafana's macros and variables replaced, as its documentation says."""
    sql = _FILTER.sub(rf"\1 BETWEEN '{first}T00:00:00Z' AND '{last}T23:59:59.999Z'", sql)
    return _VARIABLE.sub(lambda found: Literal(variables[found[1]]).as_string(None), sql)


def named(panel: dict[str, Any]) -> set[str]:
    """The columns that the panel draws in a manner of their own."""
    return {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}


@pytest.fixture
def analyst(database_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection as the role of Grafana, to the measures of a workspace and an open pull request."""
    measured.store(database_url)
    with psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection:
        connection.execute(
            "UPDATE pull_request_measures SET pull_request_id = pull_request_id + 100, "
            "source_table_repo_id = (SELECT id FROM bitbucket_repositories)"
        )
        connection.execute(
            "WITH opened AS (INSERT INTO pull_requests (title, external_url, created, repo_id, source, "
            "source_table_id, source_table_repo_id) SELECT 'Waits', 'https://bitbucket.org/acme/shop/pull-requests/1', "
            "now() - interval '3 days', o.id, 'bitbucket', gen_random_uuid(), o.source_table_id FROM repos o "
            "RETURNING id, repo_id, source_table_id, source_table_repo_id) "
            "INSERT INTO pull_request_measures (pull_request_id, repo_id, source_table_id, source_table_repo_id) "
            "SELECT * FROM opened"
        )
        with psycopg.connect(database_url) as owner:
            analyst_role.make_role(owner)
        connection.execute("SET ROLE dx_analyst")
        yield connection


def test_each_query_of_the_board_of_delivery_runs_as_the_analyst_for_each_choice(analyst):
    [[this_week]] = [row.values() for row in analyst.execute("SELECT max(week) FROM weekly_measures").fetchall()]
    first, last = this_week - timedelta(weeks=25), this_week + timedelta(days=6)
    variables: dict[str, str] = {}
    choices: list[str] = []
    for variable in BOARDS["delivery"]["templating"]["list"]:
        if variable["type"] == "query":
            found = analyst.execute(as_grafana_sends_it(variable["query"], variables, first, last)).fetchall()
            choices = [row.get("__value", next(iter(row.values()))) for row in found]
            variables[variable["name"]] = choices[0]
    assert [choice.partition(" ")[0] for choice in choices] == ["workspace", "repository", "team"]
    for choice in choices:
        for panel in panels("delivery"):
            [target] = panel["targets"]
            query = as_grafana_sends_it(target["rawSql"], variables | {"of": choice}, first, last)
            rows = analyst.execute(query).fetchall()
            if panel["type"] == "timeseries":
                assert [row["time"].date() for row in rows] == sorted(row["time"].date() for row in rows)
                assert len(rows) == measured.WEEKS - 1, (choice, panel["title"])
                assert not any(value is None for row in rows for value in row.values())
            if choice != choices[-1]:  # the pull requests have no author in a team
                assert rows, (choice, panel["title"])
                assert named(panel) <= rows[0].keys(), panel["title"]
                assert all(value is not None for value in rows[0].values()), (choice, panel["title"])


def test_boards_choose_data_sources_that_are_provisioned_and_no_panel_lies_over_another():
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/dx-dagster.yaml").read_text())["datasources"]
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/dx-dagster.yaml").read_text())["providers"]
    mounted = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted
    assert next(one for one in sources if one["type"] == "grafana-postgresql-datasource")["user"] == "dx_analyst"
    for name, board in BOARDS.items():
        [chosen] = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
        assert chosen["query"] in {one["type"] for one in sources}
        for panel in panels(name):
            for target in panel["targets"]:
                assert target["datasource"] == panel["datasource"] == {
                    "type": chosen["query"], "uid": f"${{{chosen['name']}}}"
                }  # fmt: skip
        cells = Counter(
            (x, y)
            for place in (panel["gridPos"] for panel in board["panels"])
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
        assert max(cells.values()) == 1
        assert max(x for x, _ in cells) < 24
        assert max(Counter(panel["id"] for panel in board["panels"]).values()) == 1
        assert {link["url"].removeprefix("/d/") for link in board["links"]} <= {one["uid"] for one in BOARDS.values()}
