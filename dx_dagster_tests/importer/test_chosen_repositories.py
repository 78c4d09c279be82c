"""Repositories that somebody includes and excludes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.warehouse.connections.chosen_repositories import Choice
from dx_dagster.warehouse.imported.marks import Pace
from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.delivering import installed
from dx_dagster_tests.importing import KEYS, Installation

SMALL = WorldConfig(seed=4, repositories=5, pull_requests=20, members=4)


@pytest.fixture
def command(run_cli: RunCli, database_url: str) -> Callable[..., str]:
    def run(*arguments: str, expected: int = 0) -> str:
        done = run_cli("repositories", *arguments, env={"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS})
        assert done.returncode == expected, done.stderr
        return done.stdout + done.stderr

    return run


def test_what_is_excluded_costs_no_request_keeps_its_rows_and_comes_back_whole(database_url, command):
    with installed(database_url, SMALL) as installation:
        sandbox, world = installation.sandbox, installation.sandbox.world
        left_out, other = world.open_repositories[:2]
        watcher = Watcher(world)
        assert f"imports {len(world.repositories) - 1} of" in command("exclude", "acme", left_out.slug.upper())
        ids = f"SELECT id FROM bitbucket_repositories WHERE slug = '{left_out.slug}'"
        pulls = f"SELECT FROM bitbucket_pulls WHERE repository_id IN ({ids})"
        before = installation.query(pulls)
        assert before
        installation.sync()
        for repository in (left_out, other):
            world.open_pull_request(repository)
        installation.deliver(*watcher.deliveries())
        sandbox.requests.reset()
        installation.refresh()
        assert [one.path for one in sandbox.requests if left_out.uuid[1:-1] in one.path.partition("?")[0]] == []
        assert installation.query(pulls) == before
        shown = {one["slug"]: one for one in json.loads(command("list", "ACME", "--json"))["repositories"]}
        assert shown[left_out.slug]["reason"] == f"excluded by {left_out.slug}"
        assert [shown[one.slug]["imported"] for one in (left_out, other)] == [False, True]

        command("include", "acme", left_out.slug)
        installation.sync(pace=Pace(vouched_from=datetime.min.replace(tzinfo=UTC)))  # as where a webhook is believed
        assert installation.differences() == {}


def test_the_first_pattern_says_what_becomes_of_the_others_and_the_last_that_matches_counts(database_url, command):
    with Sandbox(SMALL) as sandbox:
        installation = Installation(database_url, sandbox)
        assert "no repository is known" in command("list", "acme")
        installation.sync()
        stored = installation.query("SELECT slug, project_key FROM bitbucket_repositories")
        every = {one["slug"]: one["project_key"] for one in stored}
        some = next(iter(every))

        def imported() -> set[str]:
            installation.sync()
            found = installation.query("SELECT slug FROM bitbucket_repositories WHERE allowlisted")
            assert {
                one["slug"] for one in json.loads(command("list", "acme", "--json"))["repositories"]
            } == every.keys()
            return {one["slug"] for one in found}

        command("include", "acme", f"project:{every[some].lower()}", f"{some[:3]}*")
        of_project = {slug for slug, key in every.items() if key == every[some] or fnmatchcase(slug, f"{some[:3]}*")}
        assert imported() == of_project
        command("exclude", "acme", some)
        assert imported() == of_project - {some}
        assert "matches no repository" in command("include", "acme", "nothing-*")
        command("include", "acme", "*")
        assert imported() == every.keys()
        command("exclude", "acme", "*")
        assert imported() == set()

        for wrong in ("acme/web", "", "project:", "two words", "x" * 300):
            assert "pattern" in command("exclude", "acme", wrong, expected=2)
        assert "is not connected" in command("exclude", "elsewhere", "web-*", expected=1)


NAMES = st.sampled_from(["web", "web-old", "api", "api-old"])
SAID = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["web*", "*old", "api", "*", "project:a", "project:b"])), max_size=6
)


@given(SAID, NAMES, st.sampled_from(["A", "B", None]))
def test_who_says_something_of_a_repository_gets_it_whatever_was_said_before(said, slug, project):
    choice = Choice()
    for include, pattern in said:
        before, choice = choice, choice.and_now([pattern], include=include)
        matches = Choice().and_now([pattern], include=True).imports(slug, project)
        if matches:
            assert choice.imports(slug, project) is include
        elif before != Choice():
            assert choice.imports(slug, project) is before.imports(slug, project)
        stored: dict[str, Any] = json.loads(json.dumps(choice.shown()))
        assert Choice.read(stored).shown() == choice.shown()
