"""`pipeline_sources`, `pipeline_runs` and `deployments`: what each row says, and that builds follow what changes."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from dx_dagster.insights import building
from dx_dagster.insights.unified import BUILDS
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.unified_truth_pipelines import attributed
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.importing import Installation

Database = psycopg.Connection[tuple[Any, ...]]
Build = Callable[[], dict[str, building.Built]]
ACME, WEB, ANN = UUID(int=0xA1), UUID(int=0xB1), UUID(int=0xC1)
PRODUCTION, STAGING = UUID(int=0xE1), UUID(int=0xE2)
TABLES = {f"unified/{name}" for name in ("repos", "pull_requests", "pipeline_sources", "pipeline_runs", "deployments")}
ROWS = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES ('{ACME}', '{{a1}}', 'acme');
    INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug, name, default_branch)
        VALUES ('{WEB}', '{{b1}}', '{ACME}', 'web', 'Web', 'main'),
               (gen_random_uuid(), '{{b2}}', '{ACME}', 'quiet', 'Quiet', 'main');
    INSERT INTO bitbucket_users (id, source_id, workspace_id, name) VALUES ('{ANN}', '{{c1}}', '{ACME}', 'Ann');
    INSERT INTO bitbucket_environments (id, source_id, repository_id, name, type)
        VALUES ('{PRODUCTION}', '{{e1}}', '{WEB}', 'Live', 'Production'),
               ('{STAGING}', '{{e2}}', '{WEB}', 'Staging', 'Staging');"""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(ROWS.encode())
        connection.execute("SET TIME ZONE 'UTC'")
        yield connection


@pytest.fixture
def build(database_url: str) -> Iterator[Build]:
    """Builds the tables once; answers what each build did."""
    with asyncio.Runner() as runner:
        warehouse = Warehouse(database_url)
        runner.run(warehouse.__aenter__())

        async def run() -> dict[str, building.Built]:
            return {
                build.key: await building.run(warehouse, build, str(ACME)) for build in BUILDS if build.key in TABLES
            }

        yield lambda: runner.run(run())
        runner.run(warehouse.__aexit__(None, None, None))


def add_pipeline(database: Database, number: int, **columns: object) -> None:
    values = {"id": UUID(int=number), "source_id": f"{{{number}}}", "repository_id": WEB, **columns}
    add(database, "bitbucket_pipelines", values)


def add(database: Database, table: str, values: dict[str, object]) -> None:
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({places})".encode(), list(values.values()))


STATUS = {
    ("COMPLETED", None, "SUCCESSFUL"): "success",
    ("IN_PROGRESS", "PAUSED", None): "success",
    ("COMPLETED", None, "FAILED"): "failure",
    ("COMPLETED", None, "ERROR"): "failure",
    ("COMPLETED", None, "EXPIRED"): "failure",
    ("COMPLETED", None, "STOPPED"): "cancelled",
    ("PENDING", None, None): "running",
    ("IN_PROGRESS", "RUNNING", None): "running",
    ("IN_PROGRESS", "HALTED", None): "running",
    ("IN_PROGRESS", None, None): "running",
    ("COMPLETED", None, "NEVER_HEARD_OF"): "unknown",
    ("COMPLETED", None, None): "unknown",
    ("NEVER_HEARD_OF", None, None): "unknown",
    (None, None, None): "unknown",
}


def test_status_of_a_run(database, build):
    for number, (state, stage, result) in enumerate(STATUS):
        add_pipeline(database, number, state=state, stage=stage, result=result)
    build()
    stored = database.execute(
        "SELECT t.state, t.stage, t.result, r.status FROM pipeline_runs r JOIN bitbucket_pipelines t "
        "ON t.id = r.source_table_id"
    )
    assert {tuple(given): status for *given, status in stored} == STATUS


def test_a_run_follows_its_repository_its_pull_request_and_the_person_who_started_it(database, build):
    add_pipeline(database, 1, user_id=ANN, pull_id=UUID(int=0xD1), state="COMPLETED", result="FAILED", ref_name="main")
    add_pipeline(database, 2, repository_id=WEB, created_at="2026-11-02 10:00Z", duration=60)
    build()
    rows = "SELECT id, name, repository, status, pr_number, pull_id, dx_user_id, email, deleted FROM pipeline_runs"
    assert database.execute(
        "SELECT name, repo_id = (SELECT id FROM repos WHERE name = 'Web') FROM pipeline_sources"
    ).fetchall() == [("Web", True)]
    before = database.execute(f"{rows} ORDER BY source_id").fetchall()
    [user] = database.execute("SELECT id FROM dx_users").fetchone() or (None,)  # of the account that it met first
    assert [row[1:] for row in before] == [
        ("Web", "acme/web", "failure", None, None, user, None, False),
        ("Web", "acme/web", "unknown", None, None, None, None, False),
    ]
    assert {did.updated for did in build().values()} == {0}

    database.execute("UPDATE bitbucket_pipelines SET result = 'SUCCESSFUL' WHERE result = 'FAILED'")  # run again
    assert build()["unified/pipeline_runs"].updated == 1
    add(database, "bitbucket_pulls", {"id": UUID(int=0xD1), "source_id": 7, "repository_id": WEB, "state": "OPEN"})
    assert build()["unified/pipeline_runs"].updated == 1
    database.execute("UPDATE dx_users SET email = 'ann@acme.org'")
    assert build()["unified/pipeline_runs"].updated == 1
    [(number, *_), _] = before
    [pull] = database.execute("SELECT id FROM pull_requests").fetchone() or (None,)
    assert database.execute(f"{rows} WHERE source_id = '{{1}}'").fetchone() == (
        number, "Web", "acme/web", "success", 7, pull, user, "ann@acme.org", False,
    )  # fmt: skip

    database.execute("UPDATE dx_users SET email = 'ann@new.org'")
    database.execute("UPDATE bitbucket_repositories SET slug = 'site', deleted_at = now() WHERE slug = 'web'")
    build()
    assert database.execute("SELECT repository, email, deleted FROM pipeline_runs ORDER BY source_id").fetchall() == [
        ("acme/site", "ann@new.org", True),
        ("acme/site", None, True),
    ]
    database.execute("DELETE FROM bitbucket_pipelines WHERE source_id = '{2}'")
    build()
    assert database.execute("SELECT source_id FROM pipeline_runs").fetchall() == [("{1}",)]


class History:
    """A repository's commits, merged pull requests and deployments, in the database and beside it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.parents: dict[str, list[str]] = {}
        self.merges: dict[int, str] = {}
        self.deployments: dict[str, tuple[UUID, int, str]] = {}  # environment, hour and commit of successful ones

    def commit(self, sha: str, *parents: str) -> None:
        self.parents[sha] = list(parents)
        self.store(sha)

    def store(self, sha: str) -> None:
        values = {"id": UUID(int=int(sha, 36)), "sha": sha, "repository_id": WEB, "parents": self.parents[sha]}
        add(self.database, "bitbucket_repository_default_branch_commits", values)

    def merge(self, number: int, sha: str) -> None:
        self.merges[number] = sha
        pull = UUID(int=0xD000 + number)
        columns = {"id": pull, "source_id": number, "repository_id": WEB, "state": "MERGED", "merge_commit_sha": sha}
        add(self.database, "bitbucket_pulls", columns)

    def deploy(self, name: str, sha: str, hour: int, environment: UUID = PRODUCTION, **columns: object) -> None:
        state = {"state": "COMPLETED", "status": "SUCCESSFUL", **columns}
        if state["status"] == "SUCCESSFUL" and state["state"] == "COMPLETED":
            self.deployments[name] = (environment, hour, sha)
        at = "2026-11-02 00:00Z", f"{hour} hours"
        row = {"id": UUID(int=int(name, 36)), "source_id": name, "repository_id": WEB, "environment_id": environment}
        add(self.database, "bitbucket_deployments", row | {"commit_sha": sha} | state)
        self.database.execute(
            "UPDATE bitbucket_deployments SET completed_at = %s::timestamptz + %s::interval WHERE source_id = %s",
            [*at, name],
        )

    def attributed(self) -> dict[str, list[int]]:
        """The numbers of the pull requests that each deployment is the first to contain, as stored."""
        found = self.database.execute("""
            SELECT d.reference_id, COALESCE(array_agg(q.external_id::int ORDER BY q.external_id::int)
                                            FILTER (WHERE q.id IS NOT NULL), '{}'),
                   cardinality(d.merge_commit_shas) > 0, d.attributed_at IS NOT NULL
            FROM deployments d LEFT JOIN deployment_pull_requests a ON a.deployment_id = d.id
            LEFT JOIN pull_requests q ON q.id = a.pull_request_id GROUP BY d.id""").fetchall()
        assert all(bool(pulls) == has_shas == has_date for _, pulls, has_shas, has_date in found)
        return {name: pulls for name, pulls, *_ in found if pulls}

    def expected(self) -> dict[str, list[int]]:
        """The same by a second way: each commit's ancestors as a set, each deployment in its order."""
        found: dict[str, list[int]] = {}
        for environment in (PRODUCTION, STAGING):
            seen: set[str] = set()
            these = [(hour, name, sha) for name, (where, hour, sha) in self.deployments.items() if where == environment]
            for _, name, sha in sorted(these):
                contained = self.ancestors(sha)
                numbers = sorted(n for n, merged in self.merges.items() if merged in contained - seen)
                found |= {name: numbers} if numbers else {}
                seen |= contained
        return found

    def ancestors(self, sha: str) -> set[str]:
        found: set[str] = set()
        pending = {sha}
        while pending:
            found |= pending
            pending = {parent for one in pending for parent in self.parents.get(one, [])} - found
        return found


@pytest.fixture
def history(database: Database) -> History:
    return History(database)


def test_a_deployment_that_ended_is_a_row_and_keeps_its_number(database, build, history):
    history.deploy("live", "c1", 1)
    history.deploy("stopped", "c1", 2, STAGING, status="STOPPED")
    history.deploy("failed", "c1", 3, STAGING, status="FAILED")
    history.deploy("running", "c1", 4, state="IN_PROGRESS", status=None)
    history.deploy("waiting", "c1", 5, state="UNDEPLOYED", status=None)
    build()
    rows = """SELECT d.id, reference_id, service_id = x.id, repository, service, commit_sha, environment, success,
                     deployed_at::text, merge_commit_shas, attributed_at, d.deleted
              FROM deployments d JOIN repos x ON x.name = 'Web' ORDER BY d.id"""
    first = database.execute(rows).fetchall()
    same = (True, "acme/web", "Web", "c1")
    assert [row[1:] for row in first] == [
        ("live", *same, "production", True, "2026-11-02 01:00:00+00", [], None, False),
        ("stopped", *same, "Staging", False, "2026-11-02 02:00:00+00", [], None, False),
        ("failed", *same, "Staging", False, "2026-11-02 03:00:00+00", [], None, False),
    ]
    database.execute("UPDATE bitbucket_deployments SET state = 'IN_PROGRESS' WHERE source_id = 'failed'")
    build()
    assert database.execute(rows).fetchall() == first[:2]
    database.execute("UPDATE bitbucket_deployments SET state = 'COMPLETED' WHERE source_id = 'failed'")
    database.execute("UPDATE bitbucket_environments SET name = 'Stage' WHERE name = 'Staging'")
    build()
    assert [(row[0], row[6]) for row in database.execute(rows)] == [
        (first[0][0], "production"), (first[1][0], "Stage"), (first[2][0], "Stage"),
    ]  # fmt: skip


def test_a_deployment_is_attributed_to_the_merges_that_it_is_the_first_to_contain(database, build, history):
    # main: m1 - m2 - m4, where m2 and m4 are merge commits; m3 was merged into a release branch.
    history.commit("m1")
    history.commit("s2", "m1")
    history.commit("m2", "m1", "s2")
    for number, sha in ((1, "m1"), (2, "m2"), (3, "m3")):
        history.merge(number, sha)
    history.deploy("failed", "m2", 1, status="FAILED")
    history.deploy("first", "m1", 2)
    history.deploy("again", "m1", 3)
    history.deploy("late", "m2", 9)
    history.deploy("test", "m2", 1, STAGING)
    history.deploy("release", "m3", 5)
    build()
    assert history.attributed() == {"first": [1], "late": [2], "test": [1, 2], "release": [3]}
    assert {did.inserted + did.updated for did in build().values()} == {0}

    history.deploy("early", "m2", 8)  # imported after a later one
    history.merge(5, "s4")
    history.deploy("next", "m4", 10)  # before the commits and one of the pull requests
    build()
    assert history.attributed() == {"first": [1], "early": [2], "test": [1, 2], "release": [3]}
    history.commit("s4", "m1")
    history.commit("m4", "m2", "s4")
    build()
    assert history.attributed()["next"] == [5]
    history.merge(4, "m4")
    build()
    assert history.attributed() == history.expected()
    assert history.attributed()["next"] == [4, 5]

    # The branch is rewritten: what was deployed stays so, and what is there anew was deployed by none.
    database.execute("DELETE FROM bitbucket_repository_default_branch_commits WHERE sha IN ('m2', 's2', 'm4', 's4')")
    history.commit("n2", "m1")
    history.merge(6, "n2")
    build()
    assert history.attributed() == history.expected()
    # It failed after all: the next one that contains the same takes over.
    database.execute("UPDATE bitbucket_deployments SET status = 'FAILED' WHERE source_id = 'first'")
    del history.deployments["first"]
    build()
    assert history.attributed()["again"] == [1]


@pytest.mark.parametrize("seed", range(2))
def test_attribution_is_the_same_in_whatever_order_things_arrive(build, history, seed):
    random = Random(seed)
    shas = [f"c{number}" for number in range(40)]
    steps: list[Callable[[], None]] = []
    for number, sha in enumerate(shas):
        near = shas[max(0, number - 6) : number]
        history.parents[sha] = random.sample(near, min(len(near), random.choice((1, 1, 2))))
        steps.append(partial(history.store, sha))
        if random.random() < 0.5:
            steps.append(partial(history.merge, number, sha))
    for number in range(15):
        where, status = random.choice((PRODUCTION, STAGING)), random.choice(("SUCCESSFUL", "SUCCESSFUL", "FAILED"))
        steps.append(
            partial(history.deploy, f"d{number}", random.choice(shas), random.randrange(1000), where, status=status)
        )
    random.shuffle(steps)
    for number, step in enumerate(steps):
        step()
        if number % 7 == 0:
            build()
    build()
    assert history.attributed() == history.expected()


def test_an_imported_deployment_is_attributed_as_the_history_of_the_sandbox_says(database_url):
    with Sandbox(WorldConfig(seed=5, repositories=3, pull_requests=40, members=5)) as sandbox:
        installation = Installation(database_url, sandbox)
        for changes in (0, 30):
            sandbox.world.step(changes)
            installation.sync()
            assert installation.differences() == {}
            stored = installation.query("""
                SELECT d.reference_id, q.external_id::int AS number FROM deployment_pull_requests a
                JOIN deployments d ON d.id = a.deployment_id JOIN pull_requests q ON q.id = a.pull_request_id""")
            expected = attributed(sandbox.world, truth(sandbox.world))
            assert {(row["reference_id"], row["number"]) for row in stored} == expected != set()
