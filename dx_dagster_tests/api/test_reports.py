"""Reports: files of DX's form, right and wrong ones, over the whole application."""

import csv
import html
import io
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from dx_dagster.api.app import create_app
from dx_dagster.insights.reports import running
from dx_dagster.insights.reports.files import SHIPPED
from dx_dagster.settings import Settings
from dx_dagster.warehouse import api_keys
from dx_dagster_tests.connecting import on_warehouse
from dx_dagster_tests.insights import small_workspace
from dx_dagster_tests.servers import serving

PAGE = Path(__file__).parents[2] / "docs" / "reports.md"
_numbers = count()
LEAK = "the-stored-secret"
WEEKS = {"from": "2026-01-01", "to": "2026-12-31"}
LINE = "chart_type: line\n    chart_config: {xAxis: week, yAxes: [n]}"
TABLE = "chart_type: table"
VARIABLES = """variables:
- name: repo_ids
- name: empty
- name: name
  default_values: ["O'Neil; DROP TABLE repos"]
"""
# A tile's SQL and chart, and how its page ends: in a chart, in rows that a pattern describes, or in a sentence.
TILES: dict[str, tuple[str, str, str]] = {
    "line": ("SELECT date_trunc('week', merged) AS week, count(*) AS n FROM pull_requests GROUP BY 1", LINE,
             'data-drawing="report-line-time"'),
    "names-in-capitals": ("SELECT 1 AS Week, -2.50 AS N", "chart_type: line\n    chart_config: {xAxis: Week, yAxes: N}",
                          'data-drawing="report-line-number"'),
    "pie": ("SELECT name, count(*) AS n FROM repos GROUP BY 1",
            "chart_type: pie\n    chart_config: {labelColumn: name, valueColumn: n}", 'data-drawing="report-pie"'),
    "bars": ("SELECT 'a' AS week, 'x' AS kind, 1 AS n",
             ("chart_type: stacked_bar\n    chart_config: {xAxis: week, yAxes: [{column: n, label: N}], "
             "groupByColumn: kind, orientation: horizontal, overrideColors: {n: '#60a5fa'}}"),
             'data-drawing="report-bars-horizontal-tall"'),
    "scatter": ("SELECT 1 AS week, 2 AS n;", LINE.replace("line", "scatter"), 'data-drawing="report-scatter-number"'),
    "key": ("SELECT 41 + 1", TABLE, '<p class="key">42</p>'),
    "odd-values": (("SELECT 1 AS a, 2 AS a, 'infinity'::date, 'NaN'::float8, '{1}'::int[], '\\x00'::bytea, "
                   "'{\"b\": 1}'::jsonb, ROW(1, NULL), interval '1 day', NULL, '<b>'"), TABLE,
                   r'>1<td>2<td class="words">infinity<td>NaN<.*>\{1\}<.*>1 day<td class="words">-<.*>&lt;b&gt;'),
    "many-rows": ("SELECT generate_series(1, 10000000)", TABLE, "The first 1,000 rows: the query has more"),
    "huge-cell": ("SELECT repeat('x', 5000000), 1", TABLE, "x{1000}…<"),
    "no-rows": ("SELECT 1 AS week, 2 AS n WHERE false", LINE, "No rows."),
    "no-columns": ("SELECT FROM repos", TABLE, "The query has no columns."),
    "unknown-column": ("SELECT\n    nope FROM repos", TABLE, "in line 2: column .*nope.* does not exist"),
    "unknown-axis": ("SELECT 1 AS day, 2 AS n", LINE, "xAxis names the column week, and the query has day, n."),
    "no-numbers": ("SELECT 1 AS week, interval '1 day' AS n", LINE, "the column n, which holds no numbers"),
    "endless": ("SELECT pg_sleep(600)", TABLE, "takes longer than"),
    "drop": ("DROP TABLE repos", TABLE, "begins with DROP: a tile has one SELECT"),
    "two-statements": ("SELECT 1; DROP TABLE repos", TABLE, "another statement after the semicolon in line 1"),
    "delete": ("WITH gone AS (DELETE FROM repos RETURNING id) SELECT * FROM gone", TABLE, "refuses the query"),
    "file": ("SELECT pg_read_file('/etc/passwd')", TABLE, "permission denied for function pg_read_file"),
    "credentials": ("SELECT secret FROM credentials", TABLE, "permission denied for table credentials"),
    "of-dagster": ("SELECT * FROM dagster.runs", TABLE, "permission denied for schema dagster"),
    "role": (("SELECT set_config('role', 'postgres', false), query_to_xml('SELECT secret FROM credentials', true, "
             "true, '')"), TABLE, "permission denied"),
    "write-mode": ("SELECT set_config('transaction_read_only', 'off', false)", TABLE, "read-write mode"),
    "quotes": ("SELECT '$start_date'", TABLE, r"\$start_date in line 1 stands within quotes"),
    "unknown-variable": ("SELECT 1,\n    $team", TABLE, r"\$team in line 2 is unknown: there are "),
    "value-with-quotes": ("SELECT $name AS name, count(*) FROM repos", TABLE, "O&#39;Neil; DROP TABLE repos"),
}  # fmt: skip
# A file, and what is said of it.
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "no-yaml.yaml": (b"name: [", "is not valid YAML"),
    "empty.yaml": (b"", "is empty"),
    "list.yaml": (b"- 1", "line 1: a report is not a mapping"),
    "field.yaml": (b"name: A\ntitle: B\ntiles: []", "line 2: a report has no field 'title'"),
    "twice.yaml": (b"name: A\nname: B", "line 2: a report has the field name twice"),
    "tiles.yaml": (b"name: A\ntiles: []", "line 2: a report needs tiles"),
    "chart.yaml": (b"name: A\ntiles:\n- sql: SELECT 1\n  chart_type: bar", "line 4: chart_type is 'bar'"),
    "axes.yaml": (b"name: A\ntiles:\n- sql: SELECT 1\n  chart_type: line\n  chart_config:\n    xAxis: a",
                  "line 6: chart_config of a line needs yAxes"),
    "sql.yaml": (b"name: A\ntiles:\n- chart_type: table", "line 3: a tile needs sql"),
    "bomb.yaml": (b"a: &a [x, x]\nb: &b [*a, *a]\nname: *b", "line 2: aliases (*a) are not allowed"),
    "deep.yaml": (b"name: " + b"[" * 5000, "nothing in a report is nested so deeply"),
    "large.yaml": (b"#" * 300_000, "is larger than 256 KB"),
    "object.yaml": (b"name: !!python/object/apply:os.system [id]", "line 1: name is not a text"),
    "control.yaml": (b'name: "a\\0b"', "line 1: has a character that no database stores"),
    "latin.yaml": (b"name: A\n# \xe4", "line 2: is not UTF-8"),
    "reviews.yaml": (b"name: R\ntiles: [{sql: SELECT 1, chart_type: table}]", "another page has the address reviews"),
    "same.yml": (b"name: Line\ntiles: [{sql: SELECT 1, chart_type: table}]", "another file has the name 'Line' too"),
}  # fmt: skip


@pytest.fixture
def folder(dx_home: Path) -> Path:
    """The folder of an installation's report files."""
    made = dx_home / "reports"
    made.mkdir(parents=True)
    return made


def client_of(environment: dict[str, str], **more: str) -> Iterator[httpx.Client]:
    """A client of the application with an API key."""
    given = {name: value for name, value in environment.items() if name.startswith("DX_")} | more
    key = on_warehouse(
        environment["DX_DATABASE_URL"], lambda warehouse: api_keys.create(warehouse, f"tests {next(_numbers)}")
    )
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    with (
        serving(create_app(Settings.model_validate(given))) as url,
        httpx.Client(base_url=url, timeout=60, headers=headers) as client,
    ):
        yield client


@pytest.fixture
def client(environment: dict[str, str], folder: Path) -> Iterator[httpx.Client]:  # noqa: ARG001
    yield from client_of(environment)


def report(name: str, *tiles: tuple[str, str]) -> str:
    """The file of a report with these tiles: SQL, and the lines of the chart."""
    written = f"name: {name.capitalize()}\n{VARIABLES}tiles:\n"
    for sql, chart in tiles:
        lines = "".join(f"      {line}\n" for line in sql.splitlines())
        written += f"  - title: {name}\n    sql: |-\n{lines}    {chart}\n"
    return written


def everything(database_url: str) -> dict[str, str]:
    """A digest of the rows of each table that reports must not change."""
    with psycopg.connect(database_url) as connection:
        names = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'dagster') "
            # The application itself writes there.
            "AND tablename NOT IN ('api_keys', 'api_key_requests', 'receiver_uptimes')"
        ).fetchall()
        return {
            name: str(connection.execute(
                SQL("SELECT count(*), md5(string_agg(t::text, ';' ORDER BY t::text)) FROM {} t")
                .format(Identifier(schema, name))
            ).fetchone())
            for schema, name in names
        }  # fmt: skip


def test_each_report_ends_in_a_chart_or_in_one_sentence_and_nothing_is_written_or_leaked(
    client, folder, database_url, monkeypatch
):
    small_workspace.fill(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "WITH one AS (INSERT INTO connections (type, workspace, name, state) "
            "VALUES ('bitbucket', 'acme', 'acme', 'verified') RETURNING id) "
            "INSERT INTO credentials (connection_id, type, label, secret, hint) "
            "SELECT id, 'access_token', 'a', %s, '' FROM one",
            [LEAK],
        )
    for name, (sql, chart, _) in TILES.items():
        (folder / f"{name}.yaml").write_text(report(name, (sql, chart)))
    before = everything(database_url)
    for name, (_, _, wanted) in TILES.items():
        monkeypatch.setattr(running, "MOST_SECONDS", 1 if name == "endless" else 30)
        answer = client.get(f"/insights/{name}", params=WEEKS)
        assert answer.status_code == 200, name
        assert re.search(wanted, answer.text, re.DOTALL), (name, wanted, answer.text[-1500:])
        assert LEAK not in answer.text
        is_chart, is_error = "data-drawing" in answer.text, 'class="box bad"' in answer.text
        assert is_chart + is_error <= 1, name
    assert everything(database_url) == before
    together = report("together", *((sql, chart) for name, (sql, chart, _) in TILES.items() if name != "endless"))
    (folder / "together.yaml").write_text(together)
    page = client.get("/insights/together", params=WEEKS).text
    assert page.count("<section") == len(TILES) - 1  # a tile that fails leaves the others alone
    assert rows(client, "/insights/together", table="together-2") == [{"week": "1", "n": "-2.50"}]
    refused = client.get("/insights/credentials", params={"format": "csv"})
    assert (refused.status_code, "permission denied" in refused.text) == (422, True)
    assert page.count("data-drawing") == sum("data-drawing" in wanted for _, _, wanted in TILES.values())


def rows(client: httpx.Client, path: str, **asked: str) -> list[dict[str, str]]:
    answer = client.get(path, params={**WEEKS, **asked, "format": "csv"})
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_variables_are_parameters_that_the_filters_of_the_page_fill(client, folder, database_url):
    small_workspace.fill(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE pull_requests SET dx_user_id = NULL WHERE id = (SELECT min(id) FROM pull_requests)")
        [[workspace, slug, every, of_it]] = connection.execute(
            "SELECT w.slug, r.slug, (SELECT count(*) FROM pull_requests), "
            "(SELECT count(*) FROM pull_requests p WHERE p.repo_id = o.id) "
            "FROM repos o JOIN bitbucket_repositories r ON r.id = o.source_table_id "
            "JOIN bitbucket_workspaces w ON w.id = r.workspace_id ORDER BY o.id LIMIT 1"
        ).fetchall()
        [[path, of_team, first, last]] = connection.execute(
            "SELECT t.source_id, (SELECT count(*) FROM pull_requests p JOIN dx_users u ON u.id = p.dx_user_id "
            "JOIN dx_team_hierarchies h ON h.descendant_id = u.team_id WHERE h.ancestor_id = t.id), "
            "(SELECT min(created)::date::text FROM pull_requests), "
            "(SELECT max(created)::date::text FROM pull_requests) "
            "FROM dx_teams t WHERE deleted_at IS NULL ORDER BY 2 DESC, 1 LIMIT 1"
        ).fetchall()
    assert 0 < of_it < every
    assert 0 < of_team < every
    conditions = {
        "in": "p.repo_id IN ($repo_ids) AND u.team_id IN ( $team_ids ) AND u.id = ANY($user_ids)",
        "any": "p.repo_id = ANY ($repo_ids::bigint[]) AND u.team_id = ANY(ARRAY[$team_ids])",
        "not": "p.repo_id NOT IN ($repo_ids, -1)",
        "single": "u.team_id = $team_ids AND p.repo_id = $repo_ids AND 'x' = $empty AND $name <> 'x'",
        "arrays": "p.repo_id IN (SELECT unnest($repo_ids)) /* $nope /* ' */ */ AND 1 = 1 -- $1 '",
        "texts": "p.repo_id IN ($service_ids) AND 'pays $5' <> $$'$x$$ AND 'a' NOT IN ($name, '''', E'\\'')",
    }
    start = "SELECT count(*) AS n FROM pull_requests p LEFT JOIN dx_users u ON u.id = p.dx_user_id\nWHERE "
    dates = (
        "SELECT $start_date::date AS first, DATE $end_date AS last, $end_date - $start_date AS span, count(*) AS n "
        "FROM pull_requests WHERE created BETWEEN $start_date AND $end_date"
    )
    queries = [*(start + where for where in conditions.values()), dates]
    (folder / "counts.yml").write_text(report("counts", *((query, TABLE) for query in queries)))

    def counted(name: str, **asked: str) -> int:
        place = [*conditions].index(name) + 1
        [row] = rows(client, "/insights/counts", table=f"counts{f'-{place}' * (place > 1)}", **asked)
        return int(row["n"])

    assert [counted(name) for name in conditions] == [every, every, 0, every, every, every]
    in_repository = {"workspace": workspace, "repository": slug}
    assert [counted(name, **in_repository) for name in ("in", "single", "arrays")] == [of_it] * 3
    assert counted("not", **in_repository) == every - of_it
    assert [counted(name, team=path) for name in ("in", "any", "single")] == [of_team] * 3
    [span] = rows(client, "/insights/counts", table=f"counts-{len(queries)}", **{"from": first, "to": last})
    assert (span["first"] <= first, span["last"] >= last, span["n"]) == (True, True, str(every))
    assert span["span"].endswith("23:59:59.999999")
    assert client.get("/insights/counts", params={"team": "none"}).status_code == 404


def test_a_file_that_is_no_report_is_listed_with_what_is_wrong_and_where(client, folder):
    for name, (content, _) in BAD_FILES.items():
        (folder / name).write_bytes(content)
    (folder / "line.yaml").write_text(report("line", ("SELECT 1", TABLE)))
    (folder / "line.yml").write_text(report("other", ("SELECT 1", TABLE)))
    (folder / "deployments.yml").write_text(report("ours", ("SELECT 1", TABLE)))
    page = html.unescape(re.sub("<[^>]*>", "", client.get("/insights/reports").text))
    for name, (_, said) in BAD_FILES.items():
        assert f"{name}: " in page, name
        assert said in page.partition(f"{name}: ")[2].partition("\n")[0], (name, page)
    assert "line.yml: another file has this name" in page
    assert {"Line", "Ours", "Review times", "Pull request size"} <= set(page.splitlines())
    assert "Deployments" not in page.splitlines()  # of the package: a file of the folder replaces it
    answer = client.get("/insights/chart")
    assert (answer.status_code, "line 4: chart_type is" in answer.text) == (422, True)
    for path in (
        "/insights/..%2Fsettings",
        "/insights/%2Fetc%2Fpasswd",
        "/insights/line.yaml",
        "/insights/charts/report-x.json",
    ):
        assert client.get(path).status_code == 404, path
    (folder / "chart.yaml").write_text(report("chart", ("SELECT 7 AS seven", TABLE)))
    assert rows(client, "/insights/chart") == [{"seven": "7"}]


def test_a_database_whose_user_may_not_make_roles_says_what_reports_need(environment, folder, database_url):
    (folder / "one.yaml").write_text(report("one", ("SELECT count(*) FROM repos", TABLE)))
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"CREATE ROLE plain_{name} LOGIN".encode())
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO plain_{name}".encode())
        connection.execute(f"CREATE ROLE reader_{name} LOGIN".encode())
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}".encode())
        try:
            plain, reader = (database_url.replace("postgres@", f"{one}_{name}@") for one in ("plain", "reader"))
            for client in client_of(environment | {"DX_DATABASE_URL": plain}):
                page = client.get("/insights/one").text
                assert "set DX_REPORTS_DATABASE_URL to its address" in page
                assert "<section" not in page
                assert client.get("/insights").status_code == 200
                assert client.get("/insights/one", params={"format": "csv"}).status_code == 503
            for own, said in ((database_url, "postgres is a superuser"), (reader, f"reader_{name} reads public.")):
                for client in client_of(environment, DX_REPORTS_DATABASE_URL=own):
                    assert said in client.get("/insights/one").text
            connection.execute(f"DROP OWNED BY reader_{name}; DROP ROLE reader_{name}".encode())
            [made_by_hand] = re.findall(r"^```sql\n(CREATE ROLE .*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
            connection.execute(made_by_hand.replace("dx_reports", f"reader_{name}").encode())
            for client in client_of(environment, DX_REPORTS_DATABASE_URL=reader):
                assert rows(client, "/insights/one") == [{"count": "0"}]
        finally:
            connection.execute(f"DROP OWNED BY plain_{name}, reader_{name}".encode())
            connection.execute(f"DROP ROLE plain_{name}, reader_{name}".encode())


def test_the_reports_of_the_package_run_as_they_are(client, database_url):
    small_workspace.fill(database_url)
    for file in SHIPPED.glob("*.yaml"):
        page = client.get(f"/insights/{file.stem}", params=WEEKS).text
        assert page.count("<section") >= 4, file.name
        assert 'class="box bad"' not in page, (file.name, page)
        assert "data-drawing" in page, file.name
