"""Two servers on loopback for the tests of the client."""

from collections.abc import Iterator

import pytest

from dx_dagster_tests.bitbucket.answering import Server, served


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, Server]]:
    with served() as api, served() as stranger:
        yield api, stranger


@pytest.fixture
def api(running: tuple[Server, Server]) -> Server:
    return running[0].afresh()


@pytest.fixture
def stranger(running: tuple[Server, Server]) -> Server:
    return running[1].afresh()
