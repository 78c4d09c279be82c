"""Sizes of pull requests: from what the hour's requests have left, and only where the source has moved."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from subprocess import CompletedProcess

import psycopg

from dx_dagster.bitbucket.concurrency import MODEST
from dx_dagster.sandbox import RateLimit, Sandbox, WorldConfig
from dx_dagster.sandbox.diffstats import changed_files, refusal
from dx_dagster.sandbox.pull_requests import PullRequest
from dx_dagster.sandbox.recording import Recorded
from dx_dagster.settings import Settings
from dx_dagster_tests.budgets.drawing import access
from dx_dagster_tests.importing import Installation, give_credential

SMALL = WorldConfig(seed=2, repositories=6, pull_requests=100, members=8)


def asked(requests: Iterable[Recorded]) -> Counter[str]:
    """Requests for sizes by pull request, without those that redirects led to."""
    paths = (one.path.partition("?")[0] for one in requests)
    return Counter(path for path in paths if path.endswith("/diffstat"))


def pulls_of(sandbox: Sandbox) -> list[PullRequest]:
    readable = [repository for repository in sandbox.world.repositories if not repository.forbidden]
    return [pull for repository in readable for pull in repository.pull_requests.values()]


def an_hour_passes(installation: Installation, sandbox: Sandbox) -> None:
    sandbox.limits.spent.clear()
    with psycopg.connect(installation.database_url) as connection:
        connection.execute("UPDATE budgets SET spent = '[]', rests_until = NULL, careful_until = NULL")


def test_sizes_equal_the_truth_and_are_asked_again_only_where_the_source_moved(database_url):
    with Sandbox(SMALL) as sandbox:
        installation = Installation(database_url, sandbox, DX_PULL_REQUEST_SIZE="on")
        installation.sync()
        assert installation.differences() == {}
        assert {no.status for pull in pulls_of(sandbox) if (no := refusal(pull))} == {400, 404, 555}
        assert max(len(changed_files(pull)) for pull in pulls_of(sandbox)) > 100  # several pages
        assert set(asked(sandbox.requests).values()) == {1}
        assert asked(sandbox.requests).total() == len(pulls_of(sandbox))

        before = {pull: (pull.source, pull.target_branch) for pull in pulls_of(sandbox)}
        sandbox.requests.reset()
        sandbox.world.step(100)
        installation.sync()
        moved = [pull for pull in pulls_of(sandbox) if (pull.source, pull.target_branch) != before.get(pull)]
        assert any(pull in before for pull in moved)
        assert installation.differences() == {}
        assert asked(sandbox.requests).total() == len(moved)


def test_sizes_leave_a_fifth_of_each_budget_and_go_on_in_later_syncs_newest_first(database_url):
    with Sandbox(SMALL, tokens=access(1, 2), limits=RateLimit(2000)) as sandbox:
        off = Installation(database_url, sandbox)
        give_credential(off.settings, "acme", sandbox.tokens[1].secret)
        off.sync()
        assert asked(sandbox.requests) == {}
        assert off.differences() == {}

        on = Installation(database_url, sandbox, DX_PULL_REQUEST_SIZE="on")
        sandbox.limits.hourly_limit = 50
        notes: list[str] = []
        while len(notes) < 10:
            an_hour_passes(on, sandbox)
            sandbox.requests.reset()
            done = on.sync()
            by_token = Counter(request.token for request in sandbox.requests)
            assert max(by_token.values()) <= 40
            if not done.notes:
                break
            assert min(by_token.values()) == 40  # what can be spared is used
            notes += done.notes
            assert_newest_first(on)
        assert len(notes) > 2
        assert on.differences() == {}
        assert not [warning for warning in on.warnings if "waiting" in warning]
        assert 429 not in {request.status for request in sandbox.requests}


def assert_newest_first(installation: Installation) -> None:
    """Those whose turn came last may have found nothing to spare between their two requests."""
    rows = installation.query(
        """SELECT m.size_for IS NOT NULL AS settled
           FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
           LEFT JOIN pull_marks m ON m.pull_id = p.id
           WHERE r.api_accessible AND p.deleted_at IS NULL ORDER BY p.created_at DESC"""
    )
    settled = [row["settled"] for row in rows]
    assert all(settled[: settled.count(True) - MODEST])
    assert not any(settled[settled.count(True) + MODEST :])


def test_no_error_about_sizes_fails_a_sync_and_each_is_tried_again(database_url):
    with Sandbox(SMALL) as sandbox:
        installation = Installation(database_url, sandbox, DX_PULL_REQUEST_SIZE="on")
        forbidden, lost, failing, *_ = sandbox.world.open_repositories
        sandbox.faults.on("/diffstat", "throttle", 1)
        done = installation.sync()
        assert "sizes left for the next sync" in done.notes[-1]
        assert asked(sandbox.requests).total() <= MODEST

        an_hour_passes(installation, sandbox)
        sandbox.requests.reset()
        sandbox.faults.on(f"{forbidden.uuid[1:-1]}.*/diffstat", 403)
        sandbox.faults.on(f"{lost.uuid[1:-1]}(.*/diffstat|%7D$)", 404)
        sandbox.faults.on(f"{failing.uuid[1:-1]}.*/diffstat", 500, 3)
        done = installation.sync()
        assert done.notes == []
        assert set(asked(sandbox.requests).values()) == {1}
        answers = Counter(one.status for one in sandbox.requests if "/diffstat" in one.path)
        assert answers[500] == 3
        assert 3 <= answers[403] < 3 + MODEST < len(forbidden.pull_requests)
        assert {one.repository.partition("#")[0] for one in done.skipped} >= {forbidden.slug, lost.slug, failing.slug}

        sandbox.faults.clear()
        installation.sync()
        assert installation.differences() == {}


def test_a_sync_imports_sizes_where_that_is_switched_on(environment, run_cli: Callable[..., CompletedProcess[str]]):
    with Sandbox(SMALL) as sandbox:
        give_credential(Settings.model_validate(environment), "acme", sandbox.token.secret)
        chosen = environment | {"BITBUCKET_API_URL": sandbox.url, "DX_PULL_REQUEST_SIZE": "on"}
        done = run_cli("sync", "acme", "--json", env=chosen)
        assert json.loads(done.stdout)["tables"]["bitbucket_pulls"]["updated"] > 80
