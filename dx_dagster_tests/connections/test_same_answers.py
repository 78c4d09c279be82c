"""Command line, API and page say the same of the same credential: code, sentence and curl."""

import html
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from dx_dagster.api.app import create_app
from dx_dagster.bitbucket import Retries, Timeouts
from dx_dagster.cli.arguments import ConnectionType
from dx_dagster.cli.connect import connect_workspace
from dx_dagster.cli.errors import CommandError
from dx_dagster.connections import actions, verification
from dx_dagster.connections.input import new_credential
from dx_dagster.sandbox import Sandbox
from dx_dagster.sandbox.config import WorldConfig
from dx_dagster.sandbox.tokens import Token
from dx_dagster.settings import Settings
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.connecting import run
from dx_dagster_tests.servers import answering, self_signed, serving

TOKEN = "ATCTT3xWorkspaceTokenOfTheDoors0001"
NARROW = "ATCTT3xWorkspaceTokenOfTheDoors0002"
EMPTY: dict[str, tuple[int, str]] = {"/repositories/acme": (200, '{"values": []}'), "": (403, "{}")}
MISSING = {"/repositories/acme": (404, '{"error": {"message": "No such workspace."}}'), "": (403, "{}")}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    tokens = [Token(TOKEN), Token(NARROW, scopes=["repository"])]
    with Sandbox(WorldConfig(repositories=4, pull_requests=6, members=4), tokens=tokens) as sandbox:
        yield sandbox
    sandbox.faults.clear()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(verification, "_TIMEOUTS", Timeouts(connect=1, read=1, write=1, pool=1, total=2))
    monkeypatch.setattr(verification, "_IMPATIENT", Retries(attempts=1, total=1.5, backoff=0.01, patience=1))


@dataclass(frozen=True)
class Said:
    code: str
    sentence: str
    curl: str


CASES = [
    ("401", "invalid_credentials", "does not accept this credential"),
    ("403", "invalid_permissions", "lacks the scopes account, pipeline, pullrequest"),
    ("404", "no_resources", "There is no workspace acme"),
    ("empty", "no_resources", "sees no repository"),
    ("time-out", "unavailable", "did not answer in time"),
    ("tls", "unavailable", "The certificate of 127.0.0.1 cannot be verified"),
    ("html", "unavailable", "a page that is not an answer"),
]


@pytest.mark.parametrize("expected", CASES, ids=[case for case, _, _ in CASES])
def test_command_api_and_page_say_the_same(expected, environment, sandbox, tmp_path):
    case, code, words = expected
    ours = {name: environment[name] for name in environment if name.startswith("DX_")}
    settings = Settings.model_validate({**ours, "BITBUCKET_API_URL": sandbox.url})
    key = run(settings, lambda warehouse: _prepare(settings, warehouse))
    secret = {"401": "ATCTT3xUnknown", "403": NARROW}.get(case, TOKEN)
    sandbox.faults.clear()
    with ExitStack() as stack:
        if case in {"404", "empty", "tls"}:
            certificate = self_signed(tmp_path) if case == "tls" else {}
            url = stack.enter_context(answering({"404": MISSING, "empty": EMPTY}.get(case, {}), **certificate))
            settings = settings.model_copy(update={"bitbucket_api_url": url})
        elif case in {"time-out", "html"}:
            sandbox.faults.hang_seconds = 2
            sandbox.faults.on("/repositories/acme", "hang" if case == "time-out" else "html")
        by_command = _command(settings, secret)
        address = stack.enter_context(serving(create_app(settings)))
        client = stack.enter_context(httpx.Client(base_url=address, timeout=30))
        by_api, by_page = _api(client, key, secret), _page(client, key, secret)
    sandbox.faults.clear()
    assert by_command == by_api == by_page
    assert by_api.code == code
    assert words in by_api.sentence
    assert "YOUR_TOKEN" in by_api.curl


async def _prepare(settings: Settings, warehouse: Warehouse) -> str:
    await actions.connect(settings, warehouse, "acme", new_credential(SecretStr(TOKEN)))
    return (await api_keys.create(warehouse, "tests")).get_secret_value()


def _command(settings: Settings, secret: str) -> Said:
    with pytest.raises(CommandError) as caught:
        connect_workspace(settings, "acme", SecretStr(secret), kind=ConnectionType.bitbucket)
    said = re.fullmatch(r"(\w+): (.*) Nothing was stored\. To reproduce: (curl .*)", str(caught.value))
    assert said
    return Said(*said.groups())


def _api(client: httpx.Client, key: str, secret: str) -> Said:
    answer = client.post(
        "/api/connections/1/credentials.create",
        json={"secrets": {"api_token": secret}},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 422
    body: dict[str, Any] = answer.json()
    return Said(body["error"], body["message"], body["curl"])


def _page(client: httpx.Client, key: str, secret: str) -> Said:
    def token(text: str) -> str:
        return text.partition('name="csrf_token" value="')[2].partition('"')[0]

    csrf = token(client.get("/connections/sign-in").text)
    client.post("/connections/sign-in", data={"key": key, "csrf_token": csrf})
    csrf = token(client.get("/connections").text)
    form = {"workspace": "acme", "method": "api_token", "secret": secret, "csrf_token": csrf}
    answer = client.post("/connections/new", data=form)
    assert answer.status_code == 422
    box = answer.text.partition('role="alert"')[2].partition("</section>")[0]
    code, sentence = re.findall(r"<h2>(.*?)</h2>", box), re.findall(r"<p>(.*?)</p>", box)[:-1]
    curl = re.findall(r"<pre.*?>(.*?)</pre>", box)
    return Said(code[0], html.unescape(" ".join(sentence)), html.unescape(curl[0]))
