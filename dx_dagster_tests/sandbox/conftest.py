"""A sandbox for each test, and a client of it."""

from collections.abc import Iterator

import httpx
import pytest

from dx_dagster.sandbox import Sandbox
from dx_dagster_tests.sandbox.asking import SMALL, connect


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox.url, sandbox.token.secret) as opened:
        yield opened
