"""A Bitbucket with a small workspace, and an installation that connects to it."""

from collections.abc import Iterator

import pytest

from dx_dagster.sandbox import Sandbox
from dx_dagster_tests.bad_input.telling import GOOD, SMALL, credentials, tokens
from dx_dagster_tests.conftest import RunCli


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL, tokens=tokens()) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """A Bitbucket with a small workspace, reset after each test."""
    yield shared_sandbox
    shared_sandbox.faults.clear()
    for token in shared_sandbox.tokens:
        token.revoked = False


@pytest.fixture
def env(environment: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
    return environment | {"BITBUCKET_API_URL": sandbox.url}


@pytest.fixture
def connected(run_cli: RunCli, env: dict[str, str]) -> dict[str, str]:
    """An environment, without the token, whose workspace `acme` is connected."""
    done = run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": GOOD})
    assert done.returncode == 0, done.stderr
    [stored] = credentials(env)
    assert stored == (None, None)
    return env
