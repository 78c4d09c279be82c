"""Measures follow whatever happened, and agree with a second computation that shares no code with them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from dx_dagster.insights import building
from dx_dagster.insights.building import Built
from dx_dagster.insights.measures import BUILDS as MEASURES
from dx_dagster.insights.measures.assistants import names_one
from dx_dagster.insights.unified import BUILDS
from dx_dagster.sandbox.durations import business_seconds, seconds
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.schema.measures import BUSINESS_HOURS, weekly_measures
from dx_dagster_tests.insights.small_workspace import PEOPLE
from dx_dagster_tests.insights.weekly_figures import weekly_figures

ZONE = "America/New_York"
SETTINGS = f"Mon-Fri 08:00-18:00 in {ZONE}"
START = datetime(2026, 2, 16, tzinfo=UTC)  # clocks are set forward in the third week
NAMES = ("ann", "bob", "cy", "robot", "aida")
TYPES = ("human", "human", "human", "bot", "ai_bot")
TRAILER = "Work\n\nCo-Authored-By: Claude Opus 4.5 <noreply@anthropic.com>"
SHOWN = {column.name for column in weekly_measures.columns} - {"workspace_id", "repo_id", "team_id"}

Row = dict[str, Any]
hours, people = st.integers(0, 5 * 7 * 24), st.sampled_from(range(len(NAMES)))
pulls = st.fixed_dictionaries(
    {
        "repository": st.integers(0, 1),
        "author": people,
        "opened": hours,
        "coding": st.integers(-5, 48),
        "ready": st.none() | st.integers(0, 30),
        "reviews": st.lists(
            st.tuples(people, st.sampled_from(("approval", "changes_requested", "comment")), st.integers(0, 60)),
            max_size=4,
        ),
        "lasted": st.none() | st.integers(1, 300),
        "merged": st.sampled_from((True, True, True, False)),
        "message": st.sampled_from(("Work", TRAILER)),
        "reverts": st.none() | st.integers(0, 9),
    }
)
deployments = st.fixed_dictionaries(
    {
        "repository": st.integers(0, 1),
        "at": hours,
        "commit": st.integers(0, 2),
        "production": st.sampled_from((True, True, False)),
        "success": st.sampled_from((True, True, True, False)),
    }
)
runs = st.fixed_dictionaries(
    {
        "repository": st.integers(0, 1),
        "at": hours,
        "seconds": st.none() | st.integers(1, 9000),
        "result": st.sampled_from(("SUCCESSFUL", "FAILED", "STOPPED")),
        "who": people,
    }
)
PERSONS = """
    INSERT INTO dx_teams (id, source_id, name, parent_id) VALUES (1, 'Top', 'Top', NULL), (2, 'Top/Sub', 'Sub', 1);
    INSERT INTO dx_team_hierarchies (ancestor_id, descendant_id, generations) VALUES (1, 1, 0), (2, 2, 0), (1, 2, 1);
    INSERT INTO dx_users (id, source_id, name, team_id, tz) VALUES
        (1, 'ann', 'Ann', 2, 'Asia/Kolkata'), (2, 'bob', 'Bob', 2, NULL), (3, 'cy', 'Cy', 1, NULL),
        (4, 'robot', 'Robot', NULL, NULL), (5, 'aida', 'Aida', NULL, NULL);"""
HAPPENED_LATER = """
    UPDATE bitbucket_pulls SET merged_at = merged_at + interval '30 hours', closed_at = closed_at + interval '30 hours'
        WHERE source_id % 3 = 0;
    UPDATE bitbucket_deployments SET state = 'IN_PROGRESS' WHERE source_id LIKE '%0}';
    UPDATE bitbucket_pipelines SET result = 'FAILED', completed_at = completed_at + interval '6 days'
        WHERE build_number % 3 = 0;
    UPDATE bitbucket_pipelines SET completed_at = '0001-01-01' WHERE build_number % 3 = 1;
    UPDATE bitbucket_users SET type = 'bot' WHERE name = 'cy';
    DELETE FROM bitbucket_pulls WHERE source_id % 7 = 4;"""


class History:
    """What happened in one workspace, as the rows that an import stores."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection
        self.workspace = str(uuid4())
        self._repositories = [uuid4(), uuid4()]
        self.accounts = [uuid4() for _ in NAMES]
        self._environments = [[uuid4(), uuid4()] for _ in self._repositories]
        self._merged: list[list[str]] = [[], []]
        self._numbers = 0
        self.insert("bitbucket_workspaces", id=self.workspace, source_id=self.workspace, slug=self.workspace)
        for number, repository in enumerate(self._repositories):
            self.insert(
                "bitbucket_repositories", id=repository, source_id=f"{{{repository}}}", workspace_id=self.workspace,
                slug=f"r{number}", name=f"R{number}",
            )  # fmt: skip
            for kind, environment in zip(("Production", "Staging"), self._environments[number], strict=True):
                self.insert(
                    "bitbucket_environments", id=environment, source_id=f"{{{environment}}}", repository_id=repository,
                    name=kind, type=kind,
                )  # fmt: skip
        for person, (name, kind) in enumerate(zip(NAMES, TYPES, strict=True)):
            account = self.accounts[person]
            self.insert(
                "bitbucket_users", id=account, source_id=f"{{{account}}}", workspace_id=self.workspace, name=name,
                account_id=f"{name} of {self.workspace}", type=kind,
            )  # fmt: skip
            self.insert("identities", dx_user_id=person + 1, source_id=account, source="bitbucket", reason="manual")

    def insert(self, table: str, **values: object) -> None:
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})"
        self._connection.execute(statement.encode(), list(values.values()))

    def _moment(self, hours: int) -> datetime:
        """No two are the same."""
        self._numbers += 1
        return START + timedelta(hours=hours, seconds=self._numbers)

    def add_pull(self, pull: Row) -> None:
        opened = self._moment(pull["opened"])
        number, repository, identity = self._numbers, pull["repository"], uuid4()
        ended = opened + timedelta(hours=pull["lasted"]) if pull["lasted"] else None
        merged = ended if pull["merged"] else None
        sha = f"{number:08x}{identity.hex}"
        reviews = [(who, kind, opened + timedelta(hours=after, seconds=30)) for who, kind, after in pull["reviews"]]
        by_people = any(
            TYPES[who] == "human" and who != pull["author"] and (ended is None or at <= ended) for who, _, at in reviews
        )
        self.insert(
            "bitbucket_pulls", id=identity, source_id=number, repository_id=self._repositories[repository],
            user_id=self.accounts[pull["author"]], title=f"Number {number}", created_at=opened,
            state="OPEN" if ended is None else "MERGED" if merged else "DECLINED", closed_at=ended, merged_at=merged,
            ready_for_review=None if pull["ready"] is None else opened + timedelta(hours=pull["ready"]),
            merge_commit_sha=sha if merged else None, open_to_first_review=1.0 if by_people else None,
            first_commit_at=opened - timedelta(hours=pull["coding"]),
        )  # fmt: skip
        before = self._merged[repository]
        message = pull["message"]
        if pull["reverts"] is not None and before:
            message += f"\n\nThis reverts commit {before[pull['reverts'] % len(before)]}."
        self.insert("bitbucket_pull_commits", id=uuid4(), sha=identity.hex, pull_id=identity, message=message)
        for who, kind, at in reviews:
            event = {"pull_id": identity, "user_id": self.accounts[who], "created_at": at}
            self.insert("bitbucket_pull_activities", id=uuid4(), kind=kind, **event)
            if kind == "comment":
                self._numbers += 1
                self.insert("bitbucket_pull_comments", id=uuid4(), source_id=self._numbers, updated_at=at, **event)
        if merged:
            before.append(sha)

    def add_deployment(self, deployment: Row) -> None:
        at, commits = self._moment(deployment["at"]), self._merged[deployment["repository"]]
        self.insert(
            "bitbucket_deployments", id=uuid4(), source_id=f"{{{self._numbers}}}", state="COMPLETED", completed_at=at,
            repository_id=self._repositories[deployment["repository"]], started_at=at, updated_at=at,
            environment_id=self._environments[deployment["repository"]][0 if deployment["production"] else 1],
            commit_sha=commits[-1 - deployment["commit"] % len(commits)] if commits else None,
            status="SUCCESSFUL" if deployment["success"] else "FAILED",
        )  # fmt: skip

    def add_run(self, run: Row) -> None:
        at = self._moment(run["at"])
        ended = None if run["seconds"] is None else at + timedelta(seconds=run["seconds"])
        self.insert(
            "bitbucket_pipelines", id=uuid4(), source_id=f"{{{uuid4()}}}", build_number=self._numbers, created_at=at,
            repository_id=self._repositories[run["repository"]], user_id=self.accounts[run["who"]],
            state="COMPLETED" if ended else "IN_PROGRESS", result=run["result"] if ended else None, completed_at=ended,
            duration=run["seconds"],
        )  # fmt: skip

    def go_on(self, pulls: Sequence[Row], deployments: Sequence[Row], runs: Sequence[Row]) -> None:
        for pull in sorted(pulls, key=lambda one: one["opened"]):
            self.add_pull(pull)
        for deployment in deployments:
            self.add_deployment(deployment)
        for run in runs:
            self.add_run(run)


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connected:
        connected.execute(PERSONS.encode())
        yield connected


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    st.lists(pulls, min_size=8, max_size=14),
    st.lists(deployments, min_size=6, max_size=10),
    st.lists(runs, max_size=8),
)
def test_measures_agree_with_a_second_computation_after_each_change(connection, database_url, pulls, deployments, runs):
    """Each example is one more workspace of the same people, whose teams count over all of them."""
    history = History(connection)

    def build(*, full: bool = False) -> dict[str, Built]:
        async def run() -> dict[str, Built]:
            builds = [build for build in BUILDS if build not in PEOPLE] if not full else MEASURES
            async with Warehouse(database_url) as warehouse:
                return {
                    build.key: await building.run(warehouse, build, history.workspace, settings=SETTINGS, full=full)
                    for build in builds
                }

        return asyncio.run(run())

    def agree() -> None:
        assert wrongly_deployed(connection) == []
        expected = weekly_figures(database_url, ZONE)
        stored = {
            (row["scope"], row["scope_id"], row["week"]): row
            for row in connection.execute("SELECT * FROM weekly_measures").fetchall()
        }
        assert stored.keys() == expected.keys()
        for key, row in stored.items():
            figures = {name: value for name in SHOWN - {"scope", "scope_id", "week"} if (value := row[name])}
            assert figures == pytest.approx(expected[key], rel=1e-9), key

    half = len(pulls) // 2
    history.go_on(pulls[:half], deployments[:4], runs[:4])
    assert build()["measures/weeks"].everything
    agree()
    history.go_on(pulls[half:], deployments[4:], runs[4:])
    connection.execute(HAPPENED_LATER.encode())
    assert not build()["measures/weeks"].everything
    agree()
    connection.execute("UPDATE dx_users SET team_id = 3 - team_id WHERE id IN (2, 3)")
    build()
    agree()
    assert [(one.inserted, one.updated) for one in build(full=True).values()] == [(0, 0), (0, 0)]


def test_a_review_with_another_account_of_the_author_is_no_review(connection, database_url):
    history = History(connection)
    common: Row = {"repository": 0, "author": 0, "opened": 24, "coding": 1, "ready": None, "lasted": 24, "merged": True}
    common |= {"message": "Work", "reverts": None}
    history.go_on(
        [
            common | {"reviews": [(1, "approval", 1), (1, "comment", 2), (2, "approval", 5)]},
            common | {"reviews": [(1, "comment", 1)]},
            common | {"reviews": [(2, "comment", 1)], "ready": 3},
        ],
        [],
        [],
    )

    async def build() -> None:
        async with Warehouse(database_url) as warehouse:
            for one in BUILDS:
                if one not in PEOPLE:
                    await building.run(warehouse, one, history.workspace, settings=SETTINGS)

    def measured(bob: int) -> list[tuple[Any, ...]]:
        """The measures, where Bob's account is this person's."""
        connection.execute("UPDATE identities SET dx_user_id = %s WHERE source_id = %s", [bob, history.accounts[1]])
        asyncio.run(build())
        rows = connection.execute("""
            SELECT m.*, t.open_to_first_approval FROM pull_request_measures m
            JOIN pull_requests t ON t.id = m.pull_request_id ORDER BY m.pull_request_id""").fetchall()
        (week,) = connection.execute("SELECT * FROM weekly_measures WHERE scope = 'workspace'").fetchall()
        counts = [row["reviews"] for row in connection.execute("SELECT count(*) AS reviews FROM pull_request_reviews")]
        names = ["pickup_time", "open_to_first_approval", "review_count", "reviewer_count", "comment_count"]
        names.append("merged_without_review")
        return [
            *(tuple(row[name] for name in names) for row in rows),
            (week["review_count"], week["reviewer_count"], week["merged_without_review_count"], *counts),
        ]

    apart = [
        (3600 + 30, 3600 + 30, 3, 2, 1, False),
        (3600 + 30, None, 1, 1, 1, False),
        (None, None, 1, 1, 1, False),
        (5, 2, 0, 5),
    ]
    together = [
        (5 * 3600 + 30, 5 * 3600 + 30, 1, 1, 0, False),
        (None, None, 0, 0, 0, True),
        (None, None, 1, 1, 1, False),
        (2, 1, 1, 5),
    ]
    assert [measured(2), measured(1), measured(2)] == [apart, together, apart]


def wrongly_deployed(connection: psycopg.Connection[Row]) -> list[Row]:
    """Pull requests whose first deployment to production, or a duration until then, is not what it should be."""
    wrong = []
    for row in connection.execute("""
        SELECT m.*, p.first_commit_at, (
            SELECT min(d.deployed_at) FROM deployment_pull_requests a JOIN deployments d ON d.id = a.deployment_id
            WHERE a.pull_request_id = m.pull_request_id AND d.environment = 'production' AND d.success) AS expected
        FROM pull_request_measures m JOIN bitbucket_pulls p ON p.id = m.source_table_id"""):
        found = [row["deployed_at"]]
        expected = [row["expected"]]
        for name, start in (("deploy_time", row["merged"]), ("lead_time", row["first_commit_at"])):
            found += [row[name], row[name + BUSINESS_HOURS]]
            expected += [seconds(start, row["expected"]), business_seconds(start, row["expected"], ZONE)]
        if found != expected:
            wrong.append(row)
    return wrong


NAMING = {
    "Fix\n\nCo-Authored-By: Claude <noreply@anthropic.com>": True,
    "Fix\n\n🤖 Generated with [Claude Code](https://claude.com/claude-code)": True,
    "Fix\r\n\r\nCo-authored-by: Copilot <223556219+Copilot@users.noreply.github.com>\r\n": True,
    "Fix\n\nco-authored-by: devin-ai-integration[bot] <15+devin-ai-integration[bot]@users.noreply.github.com>": True,
    "Fix\n\nCo-authored-by: Cursor Agent <cursoragent@cursor.com>": True,
    "Fix\n\nCo-authored-by: aider (gpt-5) <noreply@aider.chat>": True,
    "Fix\n\nAssisted-by: Claude:claude-sonnet-4-5": True,
    "Fix\n\nAssisted-by: Codex:GPT-5.5": True,
    "Fix\n\nMade-with: Cursor": True,
    "Fix\n\nCo-authored-by: Rovo Dev <dev@example.com>": True,
    "Fix\n\nCo-authored-by: Claude Dupont <claude.dupont@example.com>": False,
    "Fix\n\nCo-authored-by: Devin Smith <devin@example.com>": False,
    "Fix\n\nSigned-off-by: Ann <ann@example.com>": False,
    "Generated with protoc": False,
    "Move the cursor: made with care, by Copilot's docs": False,
    "Remove what was generated with Copilot": False,
}


def test_trailers_name_assistants_and_not_people_of_the_same_name(connection):
    statement = "SELECT {} AS named FROM unnest(%s::text[]) k (message)".format(names_one("k.message"))
    rows = connection.execute(statement.encode(), [list(NAMING)]).fetchall()
    assert dict(zip(NAMING, (row["named"] for row in rows), strict=True)) == NAMING
