"""Clients that were written for DX work here: getdx on the Data Cloud API, dx-mcp-server on the unified tables."""

import json
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dx_dagster.api.app import create_app
from dx_dagster.connections import actions
from dx_dagster.connections.input import new_credential
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.connecting import API_TOKEN, EMAIL, SECOND, TOKEN, on_warehouse
from dx_dagster_tests.insights.small_workspace import QUERIES, fill
from dx_dagster_tests.insights.test_queries import queries
from dx_dagster_tests.servers import serving

CREDENTIALS = "/connections/1/credentials"
ASKED = (
    "cycle_time: Cycle time by team and week",
    "pipelines: Failure rate by repository",
    "deployments: Deployment frequency",
    "throughput: Merged pull requests by team, with the teams below it",
)


@pytest.fixture
def environment(environment, sandbox) -> dict[str, str]:
    return {**environment, "BITBUCKET_API_URL": sandbox.url}


@pytest.fixture
def key(settings, database_url) -> str:
    async def prepare(warehouse: Warehouse) -> SecretStr:
        await actions.connect(settings, warehouse, "acme", new_credential(SecretStr(TOKEN)))
        return await api_keys.create(warehouse, "getdx")

    made: SecretStr = on_warehouse(database_url, prepare)
    return made.get_secret_value()


def call(clients: Path, url: str, key: str, *calls: tuple[str, str, object]) -> list[dict[str, Any]]:
    """What getdx makes of each call: its answer, or its error."""
    done = subprocess.run(
        [clients / "python", Path(__file__).parent / "call_api.py"],
        input=json.dumps(calls),
        env={"DX_BASE_URL": f"{url}/api", "DX_DATA_CLOUD_TOKEN": key},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_getdx_manages_credentials_and_knows_our_errors(clients, settings, key):
    new = {"label": "Automation", "secrets": {"api_token": SECOND}}
    mended = {"id": 2, "settings": {"username": EMAIL}, "secrets": {"password": API_TOKEN}}
    with serving(create_app(settings)) as url:
        listed, info, created, updated, shown, deleted, left, wrong, unknown = call(
            *(clients, url, key),
            ("GET", "/connections.list", None),
            ("GET", "/connections.info/1", None),
            ("POST", f"{CREDENTIALS}.create", new),
            ("POST", f"{CREDENTIALS}.update", mended),
            ("GET", f"{CREDENTIALS}.info/2", None),
            ("POST", f"{CREDENTIALS}.delete", {"id": 2}),
            ("GET", f"{CREDENTIALS}.list", None),
            ("POST", f"{CREDENTIALS}.create", {"secrets": {"api_token": "wrong"}}),
            ("GET", "/connections.info/9", None),
        )
        [refused] = call(clients, url, "wrong", ("GET", "/connections.list", None))
    assert [one["name"] for one in listed["answer"]["connections"]] == ["acme"]
    assert info["answer"]["connection"]["settings"] == {"workspace": "acme"}
    assert created["answer"]["credential"]["label"] == "Automation"
    assert updated["answer"]["credential"] == {
        name: value for name, value in shown["answer"]["credential"].items() if name != "deleted_at"
    }
    assert shown["answer"]["credential"]["settings"] == {"username": EMAIL}
    assert deleted["answer"] == {"ok": True}
    assert [one["id"] for one in left["answer"]["credentials"]] == [1]
    assert wrong == {"error": "DXValidationError", "message": "DX API error: invalid_credentials", "status": 422}
    assert unknown == {"error": "DXValidationError", "message": "DX API error: connection_not_found", "status": 422}
    # getdx takes both 401 and 403 of the Data Cloud API for this.
    assert (refused["error"], refused["status"]) == ("DXFeatureUnavailableError", 401)


class QueryData:
    """The tool queryData of dx-mcp-server, over standard input and output as an AI application speaks with it."""

    def __init__(self, clients: Path, database_url: str) -> None:
        self._process = subprocess.Popen(
            [clients / "dx-mcp-server", "run"],
            env={"DB_URL": database_url, "FASTMCP_CHECK_FOR_UPDATES": "off"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        self._ask("initialize", about)
        self._send({"method": "notifications/initialized"})

    def __call__(self, statement: str) -> str:
        answer = self._ask("tools/call", {"name": "queryData", "arguments": {"sql": statement}})
        return str(answer["result"]["content"][0]["text"])

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _ask(self, method: str, parameters: Mapping[str, object]) -> dict[str, Any]:
        self._send({"id": 1, "method": method, "params": parameters})
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()


def test_dx_mcp_server_answers_from_the_unified_tables(clients, database_url):
    fill(database_url)
    every = {query.title: query for file in QUERIES.glob("*.sql") for query in queries(file)}
    with closing(QueryData(clients, database_url)) as query_data:
        columns = query_data(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_name = 'pipeline_runs' AND column_name IN ('id', 'status') ORDER BY 1"
        )
        answers = {title: query_data(every[title].statement) for title in ASKED}
        refused = query_data("SELECT nothing FROM pull_requests")
    assert columns == "column_name, data_type\nid, bigint\nstatus, text"
    assert {title: text.splitlines()[1:] for title, text in answers.items()} == {
        title: [row.replace(" | ", ", ") for row in every[title].rows] for title in ASKED
    }
    assert refused.startswith('Database Error: column "nothing" does not exist')
