"""A client of the sandbox, and its requests."""

from datetime import UTC, datetime
from typing import Any

import httpx

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.codebases import Codebase
from dx_dagster.sandbox.repositories import HostedRepository

Json = dict[str, Any]

SMALL = WorldConfig(repositories=8, pull_requests=150, members=8)
STATES = "state=OPEN&state=MERGED&state=DECLINED&state=SUPERSEDED"


def connect(url: str, secret: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=10)


def walk(client: httpx.Client, path: str) -> list[Json]:
    """Every row of a list, following `next`."""
    rows: list[Json] = []
    url = str(client.base_url).rstrip("/") + path
    while url:
        answer = client.get(url)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        rows += page["values"]
        url = page.get("next")
    return rows


def busiest(sandbox: Sandbox) -> HostedRepository:
    return max(sandbox.world.open_repositories, key=lambda repository: len(repository.pull_requests))


def under(repository: Codebase) -> str:
    return f"/repositories/acme/{repository.slug}"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
