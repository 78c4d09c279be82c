"""The pages of insights, without a browser. What one sees of them is tried in test_pages.py."""

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from pydantic import SecretStr

import dx_dagster
from dx_dagster.api.app import create_app
from dx_dagster.insights.figures import TOPICS
from dx_dagster.settings import Settings
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.schema.measures import weekly_measures
from dx_dagster_tests import measured
from dx_dagster_tests.connecting import on_warehouse
from dx_dagster_tests.servers import serving

VEGA = Path(dx_dagster.__file__).parent / "api/static/vega"
SCRIPTS = ("vega.js", "vega-lite.js", "vega-embed.js", "insights.js")
# What is asked for, the scope of its rows, and the pages that are compared.
ASKED = (
    ({"workspace": "acme"}, "workspace", [*TOPICS[False].values()]),
    ({"repository": "shop", "hours": "business"}, "repository", [TOPICS[True]["pull-requests"]]),
    ({"team": "Shop & Co/Platform"}, "team", [TOPICS[False][""]]),
)


@pytest.fixture
def stranger(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """A client without a session."""
    settings = Settings.model_validate({name: value for name, value in environment.items() if name.startswith("DX_")})
    with serving(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def client(stranger: httpx.Client, database_url: str) -> httpx.Client:
    """A client with a session."""

    async def session(warehouse: Warehouse) -> SecretStr:
        await api_keys.create(warehouse, "tests")
        return await api_keys.open_session(warehouse, (await api_keys.all_keys(warehouse))[0])

    stranger.cookies.set("dx_insights_session", on_warehouse(database_url, session).get_secret_value())
    return stranger


def table(client: httpx.Client, path: str, **filters: str) -> list[dict[str, str]]:
    answer = client.get(path, params={**filters, "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


def cells(page: str, figure: str) -> dict[str, list[tuple[str, str]]]:
    """The cells of the figure's rows on the page, by week: the exact number where there is one, and the text."""
    section = page.partition(f'aria-labelledby="{figure}"')[2].partition("</tbody>")[0]
    rows = re.findall(r"<th scope=row>([\d-]{10})(.*)$", section, re.MULTILINE)
    return {week: re.findall(r'<td(?: data-v="([^"]*)")?>([^<]*)', row) for week, row in rows}


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, pattern
    return match[1]


def stored(database_url: str, scope: str) -> dict[str, dict[str, Any]]:
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        rows = connection.execute("SELECT * FROM weekly_measures WHERE scope = %s", [scope]).fetchall()
    return {str(row["week"]): row for row in rows}


def test_page_and_csv_have_the_figures_of_the_table(client, database_url):
    this_week = measured.store(database_url)
    weeks = [str(this_week - timedelta(weeks=ago)) for ago in range(measured.WEEKS)]
    missing = weeks[1]
    for filters, scope, topics in ASKED:
        rows = stored(database_url, scope)
        assert missing not in rows
        for topic in topics:
            path = f"/insights/{topic.name}".rstrip("/")
            page = client.get(path, params=filters).text
            for figure in topic.figures:
                lines = table(client, path, **filters, table=figure.name)
                shown = cells(page, figure.name)
                assert [line["week"] for line in lines] == [*shown] == weeks
                for line in lines:
                    row = rows.get(line["week"])
                    for one, (number, text) in zip(figure.measures, shown[line["week"]], strict=True):
                        if row is None:
                            assert (line[one.column], text) == (("0", "0") if one.unit == "number" else ("", "-"))
                        elif not one.sql:
                            assert float(line[one.column]) == row[one.column], (scope, figure.name, one.column)
                            assert float(number or text) == pytest.approx(row[one.column], rel=1e-4, abs=0)


def test_figures_over_few_rows_are_told(client, database_url):
    this_week = measured.store(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE weekly_measures SET cycle_time_count = 3, bot_merged_count = 1, merged_count = 3")
    page = client.get("/insights").text
    cycle = page[page.index('id="cycle-time"') :]
    assert cycle.count("few (n=3)") == measured.WEEKS - 1  # of each stored week
    assert "few (n=3) of merged pull requests" in page  # the key figure
    assert re.search(r'class="key">2\.0\sh<', page)  # the median of 1, 2 and 3 hours
    assert "bots had 9 of 36 (25%) merged pull requests" in page
    lines = table(client, "/insights", table="cycle-time")
    assert {line["week"]: line["few"] for line in lines}[str(this_week)] == "true"
    assert {line["few"] for line in table(client, "/insights", table="lead-time")} == {"false"}


def test_the_address_has_all_filters(client, database_url):
    this_week = measured.store(database_url)
    first, last = this_week - timedelta(weeks=6), this_week - timedelta(weeks=3)
    inside = {"from": str(first + timedelta(days=2)), "to": str(last + timedelta(days=6)), "repository": "shop"}
    lines = table(client, "/insights/reviews", table="reviews", **inside)
    assert [line["week"] for line in lines] == [str(last - timedelta(weeks=ago)) for ago in range(4)]
    page = client.get("/insights/reviews", params=inside).text
    link = found(r'href="(/insights/reviews\?[^"]*)">Link to these weeks', page).replace("&amp;", "&")
    assert set(httpx.URL(link).params.items()) == {
        ("workspace", "acme"), ("repository", "shop"), ("from", str(first)), ("to", str(last)),
    }  # fmt: skip
    again = client.get(link).text
    assert re.findall(r"<tbody>.*?</tbody>", again, re.DOTALL) == re.findall(r"<tbody>.*?</tbody>", page, re.DOTALL)
    for wrong, status, said in (
        ({"workspace": "<b>"}, 404, "There is no workspace &lt;b&gt;."),
        ({"repository": "none"}, 404, "Workspace acme has no repository none."),
        ({"team": "none"}, 404, "There is no team none."),
        ({"from": "31.1.2026"}, 400, "31.1.2026 is not a valid date"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, 400, "No week lies between"),
        ({"team": "Shop & Co/Platform", "repository": "shop"}, 400, "of a repository or of a team"),
    ):
        answer = client.get("/insights", params=wrong)
        assert (answer.status_code, said in answer.text) == (status, True), wrong
        assert "<tbody>" not in answer.text
        assert client.get("/insights", params=wrong | {"format": "csv"}).status_code == status
    for path in ("/insights/none", "/insights/static/app.py", "/insights/charts/x.json"):
        assert client.get(path).status_code == 404, path
    assert client.get("/insights", params={"format": "csv", "table": "none"}).status_code == 404


def test_reviews_are_shown_by_fifths_of_the_people_and_never_by_person(client, database_url):
    this_week = measured.store(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO dx_users (id, source_id, name) OVERRIDING SYSTEM VALUE "
            "SELECT n, n::text, 'Ada Lovelace' FROM generate_series(1, 11) n"
        )
        # Person n gave n reviews, and the bot 100. The reviews of the week before that are not asked for.
        connection.execute(
            "INSERT INTO pull_request_reviews (id, created, dx_user_id, pull_request_id, repo_id, source_table_id, "
            "source_table_pull_id, source_table_repo_id, bot_authored, source) OVERRIDING SYSTEM VALUE "
            "SELECT row_number() OVER (), %(week)s::timestamp AT TIME ZONE 'UTC' - s.ago * interval '1 second', p.n, "
            "1, (SELECT id FROM repos), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), p.n > 10, 'bitbucket' "
            "FROM generate_series(1, 11) p (n), generate_series(0, 1) s (ago), "
            "generate_series(1, CASE WHEN p.n > 10 THEN 100 ELSE p.n END)",
            {"week": this_week},
        )
    asked = {"repository": "shop", "from": str(this_week), "table": "fifths"}
    shares = table(client, "/insights/load", **asked)
    assert [(one["people"], one["reviews"]) for one in shares] == [("2", n) for n in ("19", "15", "11", "7", "3")]
    assert [float(one["share"]) for one in shares] == [19 / 55, 15 / 55, 11 / 55, 7 / 55, 3 / 55]
    page = client.get("/insights/load", params=asked).text
    assert "<td>35%</td>" in page
    assert "Ada" not in page
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM pull_request_reviews WHERE dx_user_id = 4")
    assert table(client, "/insights/load", **asked) == []  # a fifth would be one person
    assert "too few people" in client.get("/insights/load", params=asked).text


def test_the_page_of_data_quality_shows_what_is_missing_and_spent(client, database_url):
    assert "Nothing is imported yet." in client.get("/insights/data-quality").text
    assert "Connect a workspace</a> first" in client.get("/insights").text
    measured.store(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO check_reports (workspace, asset, name, passed, said) VALUES "
            "('acme', 'bitbucket/comments', 'comment_counts_agree', false, '2 pull requests differ'), "
            "('acme', 'bitbucket/commits', 'keys_are_unique', true, 'all is well')"
        )
        connection.execute(
            "INSERT INTO sync_steps (run_id, step, workspace, requests) VALUES ('r', 'comments', 'acme', 7), "
            "('r', 'commits', 'acme', 1234)"
        )
    page = client.get("/insights/data-quality").text
    assert "=1+1 &lt;b&gt;403&lt;/b&gt;" in page
    assert "2 pull requests differ" in page
    assert "all is well" not in page
    assert "1,241" in page
    [skipped] = table(client, "/insights/data-quality", table="skipped")
    assert skipped == {"workspace": "acme", "repository": "shop", "reason": "'=1+1 <b>403</b>"}  # no formula
    [weeks] = table(client, "/insights/data-quality", table="weeks")
    assert (weeks["repositories"], weeks["weeks"]) == ("1", str(measured.WEEKS - 1))


def test_nothing_is_shown_without_a_session_and_the_sign_in_leads_back(stranger, database_url):
    measured.store(database_url)
    for path in ("/insights", "/insights/reviews?team=a%26b", "/insights/data-quality", "/insights/charts/bars.json"):
        for more in ("", "&format=csv" if "?" in path else "?format=csv"):
            answer = stranger.get(path + more)
            assert (answer.status_code, answer.text) == (303, "")
            assert httpx.URL(answer.headers["location"]).params["next"] == path + more
    key = on_warehouse(database_url, lambda warehouse: api_keys.create(warehouse, "tests")).get_secret_value()
    csv_of_a_program = {"params": {"format": "csv"}, "headers": {"Authorization": f"Bearer {key}"}}
    assert stranger.get("/insights", **csv_of_a_program).text.startswith("week,deployment_count")
    csv_of_a_program["headers"] = {"Authorization": f"Bearer {key[:-1]}"}
    assert stranger.get("/insights", **csv_of_a_program).status_code == 401
    for wanted, given in (("/insights/reviews?team=a%26b", None), ("//elsewhere.example/", "/connections")):
        form = stranger.get("/connections/sign-in", params={"next": wanted}).text
        token = found(r'name="csrf_token" value="([0-9a-f]+)"', form)
        sent = {"key": key, "csrf_token": token, "next": wanted}
        answer = stranger.post("/connections/sign-in", data=sent)
        assert (answer.status_code, answer.headers["location"]) == (303, given or wanted)
    page = stranger.get("/insights")
    assert page.status_code == 200
    token = found(r'name="csrf_token" value="([0-9a-f]+)"', page.text)
    session = stranger.cookies["dx_insights_session"]
    assert stranger.post("/connections/sign-out", data={"csrf_token": token}).status_code == 303
    stranger.cookies.set("dx_insights_session", session)
    assert stranger.get("/insights").status_code == 303


def test_a_key_for_insights_opens_nothing_else(stranger, database_url, run_cli):
    measured.store(database_url)
    key = run_cli("api-keys", "create", "reader", "--insights").stdout.strip()
    assert "reader" in run_cli("api-keys", "list").stdout.partition("insights only")[0]
    as_program = {"Authorization": f"Bearer {key}"}
    assert stranger.get("/insights", params={"format": "csv"}, headers=as_program).status_code == 200
    for path in ("/api/connections.list", "/metrics"):
        assert stranger.get(path, headers=as_program).status_code == 403
    assert stranger.get("/api/connections.list", headers=as_program).json()["error"] == "not_authed"
    token = found(r'name="csrf_token" value="([0-9a-f]+)"', stranger.get("/connections/sign-in").text)
    answer = stranger.post("/connections/sign-in", data={"key": key, "csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/insights")
    token = found(r'name="csrf_token" value="([0-9a-f]+)"', stranger.get("/insights").text)
    for path in ("/connections", "/connections/new", "/connections/1"):
        answer = stranger.get(path)
        assert (answer.status_code, "opens insights and nothing else" in answer.text) == (403, True)
    assert stranger.post("/connections/new", data={"csrf_token": token}).status_code in {403, 405}
    assert stranger.post("/connections/sign-out", data={"csrf_token": token}).status_code == 303
    assert stranger.get("/insights").status_code == 303


def test_pages_are_small_and_all_they_load_is_ours(client, database_url):
    this_week = measured.store(database_url)
    with psycopg.connect(database_url) as connection:
        columns = [one.name for one in weekly_measures.columns if one.name != "week"]
        listed = ", ".join(columns)
        connection.execute(
            f"INSERT INTO weekly_measures (week, {listed}) SELECT week - n * 70, {listed} "
            "FROM weekly_measures, generate_series(1, 10) n"
        )
    two_years = {"from": str(this_week - timedelta(weeks=103))}
    scripts = sum(len(client.get(f"/insights/static/{name}").content) for name in SCRIPTS)
    for topic in TOPICS[False].values():
        answer = client.get(f"/insights/{topic.name}".rstrip("/"), params=two_years)
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert (policy["script-src"], policy["style-src"], policy["default-src"]) == ("'self'", "'self'", "'none'")
        assert answer.text.count("<tr ") >= 100
        assert len(answer.content) < 100_000, topic.name
        assert len(answer.content) + scripts < 1_000_000
        assert re.findall(r'(?:src|href)="(?!/|#)[^"]*"', answer.text) == []
        assert re.findall(r"<script(?! src)|<style|style=| on[a-z]+=", answer.text) == []


def test_vega_is_what_its_page_says_and_draws_what_altair_makes(client):
    rows = re.findall(
        r"^\| `(.*?)` \| (.*?)@(\S+), .*`([0-9a-f]{64})` \|$", (VEGA / "README.md").read_text(), re.MULTILINE
    )
    assert {file for file, *_ in rows} == {path.name for path in VEGA.glob("*.js")}
    for file, package, _, digest in rows:
        assert hashlib.sha256((VEGA / file).read_bytes()).hexdigest() == digest
        assert (VEGA / f"{package}.LICENSE").exists()
    served = next(version for _, package, version, _ in rows if package == "vega-lite")
    schema = client.get("/insights/charts/shares.json").json()["$schema"]
    made_for = tuple(map(int, found(r"vega-lite/v(\d+\.\d+)", schema).split(".")))
    assert made_for[0] == int(served.split(".")[0])
    assert made_for <= tuple(map(int, served.split(".")[:2]))
