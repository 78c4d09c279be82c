"""Dagster's UI and our own pages, and what pages of others can do to them: nothing."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError
from playwright.sync_api import Browser, Page, expect

from dx_dagster.api.app import create_app
from dx_dagster.cli.ports import free_port
from dx_dagster_tests.browsing import lineage_shows_every_asset_and_nothing_covers_it
from dx_dagster_tests.commands import run_forked
from dx_dagster_tests.conftest import wait_until
from dx_dagster_tests.servers import answering, serving

# Dagster's own client passes what gql would rather have otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:Using variable_values and operation_name:DeprecationWarning")

ADD = (
    'mutation {addDynamicPartition(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: '
    '"dx_dagster"}, partitionsDefName: "workspaces", partitionKey: "MARK") {__typename}}'
)
ASK = "{version}"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}

# What a page can have a browser send. Each way has a mark of its own, which would be found where it got through.
TRY_EVERYTHING = """async ({ui, api, add}) => {
  const outcomes = {};
  const mutation = how => add.replace("MARK", how);
  const address = how => `${ui}/graphql?query=${encodeURIComponent(mutation(how))}`;
  const frame = name => document.body.appendChild(Object.assign(document.createElement("iframe"), {name}));
  const loaded = (element, how) => new Promise(done => {
    element.onload = () => done("loaded"); element.onerror = () => done("refused");
  }).then(outcome => outcomes[how] = outcome);
  const submitted = async (how, action, enctype, fields) => {
    const target = frame(how), form = document.body.appendChild(document.createElement("form"));
    Object.assign(form, {action, enctype, method: "post", target: how});
    for (const [name, value] of Object.entries(fields))
      form.append(Object.assign(document.createElement("input"), {name, value}));
    const done = new Promise(resolve => target.onload = resolve);
    form.submit();
    await done;
  };
  const fetched = (how, url, options) => fetch(url, {credentials: "include", ...options})
    .then(answer => answer.text()).then(text => text ? `read ${text}` : "refused", () => "refused")
    .then(outcome => outcomes[how] = outcome);
  for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
    await submitted(enctype, address(enctype), enctype, {query: mutation(enctype)});
  await submitted("sign-out", `${api}/connections/sign-out`, "text/plain", {});
  const json = {method: "POST", headers: {"Content-Type": "application/json"}};
  await fetched("json", `${ui}/graphql`, {...json, body: JSON.stringify({query: mutation("json")})});
  await fetched("plain", address("plain"), {method: "POST", body: mutation("plain")});
  await fetched("opaque", address("opaque"), {method: "POST", body: mutation("opaque"), mode: "no-cors"});
  await fetched("get", address("get"), {});
  await fetched("graphql", `${ui}/graphql?query={version}`, {});
  await fetched("index", `${ui}/`, {});
  await fetched("connections", `${api}/connections`, {});
  await fetched("listed", `${api}/api/connections.list`, {});
  navigator.sendBeacon(address("beacon"), "x");
  for (const kind of ["img", "script"]) {
    const element = document.createElement(kind), done = loaded(element, kind);
    document.body.append(element);
    element.src = address(kind);
    await done;
  }
  for (const url of [`${ui}/`, `${api}/connections`]) {
    const framed = frame("framed"), done = new Promise(resolve => framed.onload = resolve);
    framed.src = url;
    await done;
  }
  outcomes.websocket = await new Promise(done => {
    const socket = new WebSocket(`${ui.replace("http", "ws")}/graphql`, "graphql-ws");
    socket.onopen = () => done("opened"); socket.onerror = () => done("refused");
  });
  return outcomes;
}"""


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The port of somebody else's server."""
    with answering({"": (200, "<!doctype html><title>Elsewhere</title><body></body>")}) as url:
        yield httpx.URL(url).port or 0


@pytest.fixture
def start(environment) -> Iterator[Callable[..., str]]:
    """Starts a server alone, `ui` or `serve`; its address."""
    started = []

    def start(command: str, **more: str) -> str:
        port = free_port()
        health = f"http://127.0.0.1:{port}/{'server_info' if command == 'ui' else 'healthz'}"
        arguments = [sys.executable, "-m", "dx_dagster.cli", command, "--port", str(port)]
        started.append(subprocess.Popen(arguments, env=environment | more, stderr=subprocess.DEVNULL))

        def answers() -> bool:
            try:
                return httpx.get(health).is_success
            except httpx.TransportError:
                return False

        assert wait_until(answers, 120)
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.terminate()
        assert process.wait(60) == 0


def test_no_page_and_no_host_from_elsewhere_reads_or_changes_anything_and_dagsters_own_pages_and_clients_work(
    start: Callable[..., str], environment, database_url, browser: Browser, elsewhere
):
    hosts = {"DX_ALLOWED_HOSTS": "dx.example.com"}
    ui, api = start("ui", **hosts, DX_UI_SIGN_IN="off"), start("serve", **hosts)
    hosts_and_origins_are_checked(ui)
    assert partitions(database_url) == set()
    key = run_forked(["api-keys", "create", "tests"], environment).stdout.strip()
    dagsters_client_works(ui)
    assert ask(ui, ADD.replace("MARK", "acme")).json()["data"]["addDynamicPartition"]
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    sign_in(page, f"{api}/connections", key)
    for host in ("127.0.0.1", "localhost"):  # the same site, from which cookies are sent, and another
        statuses = statuses_of_ours(page, ui, api)
        page.goto(f"http://{host}:{elsewhere}")
        outcomes = page.evaluate(TRY_EVERYTHING, {"ui": ui, "api": api, "add": ADD})
        assert set(outcomes.values()) == {"refused"}, outcomes
        assert len(statuses) >= 10  # the console tells of the others, which are asked about first
        assert {status for status in statuses.values() if status != 401} == {403}, statuses  # the API asks for a key
        # A link opens a page, as it should, and does nothing.
        with page.expect_navigation():
            page.evaluate("address => { location.href = address }", f"{ui}/graphql?query={ADD}")
        expect(page).to_have_title("GraphiQL")
        page.wait_for_load_state("networkidle")  # it asks for the schema, which is no request from elsewhere
    assert partitions(database_url) == {"acme"}
    page.goto(f"{api}/connections")
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()  # still signed in

    page = context.new_page()
    lineage_shows_every_asset_and_nothing_covers_it(page, ui)
    dagsters_pages_work(page, ui)
    context.close()
    nobodys_forwarded_headers_count(api)


def hosts_and_origins_are_checked(ui: str) -> None:
    own = ui.removeprefix("http://")
    for host in ("localhost", "127.0.0.1:80", "[::1]", "DX.example.com", "dx.example.com:3000"):
        assert ask(ui, ASK, Host=host).status_code == 200
    for host in ("elsewhere.example", "dx.example.com.elsewhere.example", "127.0.0.1.elsewhere.example", "", "a b"):
        answer = ask(ui, ASK, Host=host)
        assert (answer.status_code, "DX_ALLOWED_HOSTS" in answer.text) == (421, True)
        assert upgrade(ui, Host=host) == 421
    for headers in ({}, {"Origin": ui}, {"Origin": ui, "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"},
                    # a proxy that puts in the host that it asks for
                    {"Origin": "https://dx.example.com", "Sec-Fetch-Site": "same-origin"}):  # fmt: skip
        assert ask(ui, ASK, **headers).status_code == 200
        assert upgrade(ui, **headers) == 101
    for headers in ({"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": f"http://x.{own}"}, {"Origin": ""},
                    {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site", "Origin": ui},
                    {"Sec-Fetch-Site": "same-origin", "Origin": "http://elsewhere.example"}):  # fmt: skip
        assert ask(ui, ADD, **headers).status_code == 403
        assert upgrade(ui, **headers) == 403
        assert httpx.get(f"{ui}/server_info", headers=headers).status_code == 403
    # Nothing but JSON in a POST, whoever sends it.
    assert httpx.get(f"{ui}/graphql", params={"query": ADD}).status_code == 405
    assert httpx.head(f"{ui}/graphql", params={"query": ADD}).status_code == 405
    assert httpx.post(f"{ui}/graphql", params={"query": ADD}, data={"query": ADD}).status_code == 415
    answer = httpx.get(ui)
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def dagsters_client_works(ui: str, **headers: str) -> None:
    client = DagsterGraphQLClient("127.0.0.1", port_number=urlsplit(ui).port, headers=headers)
    with pytest.raises(DagsterGraphQLClientError, match="RunNotFoundError"):  # Dagster's own answer
        client.get_run_status("none")


def ask(ui: str, query: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{ui}/graphql", json={"query": query}, headers=headers, timeout=60)


def upgrade(ui: str, **headers: str) -> int:
    with httpx.stream("GET", f"{ui}/graphql", headers=UPGRADE | headers, timeout=60) as answer:
        return answer.status_code


def partitions(database_url: str) -> set[str]:
    with psycopg.connect(database_url) as connection:
        return {name for (name,) in connection.execute("SELECT partition FROM dagster.dynamic_partitions").fetchall()}


def statuses_of_ours(page: Page, *addresses: str) -> dict[str, int]:
    statuses: dict[str, int] = {}

    def note(response: Any) -> None:
        if response.url.startswith(addresses) and "GraphiQL" not in response.url:
            statuses[f"{response.request.method} {response.url} {response.request.resource_type}"] = response.status

    page.on("response", note)
    return statuses


def sign_in(page: Page, address: str, key: str) -> None:
    page.goto(address)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("API key")).to_have_count(0)


def dagsters_pages_work(page: Page, ui: str, **headers: str) -> None:
    """A switch that a person turns, and what Dagster tells its pages over a WebSocket."""
    received: list[str] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(str(frame))))
    before = hourly_sync_is(ui, headers)
    page.goto(f"{ui}/locations/dx_dagster/schedules/hourly_sync")
    page.locator("label", has=page.get_by_role("checkbox")).first.click()
    assert wait_until(lambda: hourly_sync_is(ui, headers) != before, 60)
    assert wait_until(lambda: bool(received), 60), "no WebSocket told anything"


def hourly_sync_is(ui: str, headers: Mapping[str, str]) -> str:
    """Whether the schedule is switched on."""
    query = (
        '{scheduleOrError(scheduleSelector: {repositoryName: "__repository__", repositoryLocationName: "dx_dagster", '
        'scheduleName: "hourly_sync"}) {... on Schedule {scheduleState {status}}}}'
    )
    state: str = ask(ui, query, **headers).json()["data"]["scheduleOrError"]["scheduleState"]["status"]
    return state


def test_the_ui_asks_for_a_key_where_it_is_told_to(start, environment, browser: Browser):
    key = run_forked(["api-keys", "create", "tests"], environment).stdout.strip()
    ui = start("ui", DX_UI_SIGN_IN="on")
    for answer in (ask(ui, ASK), ask(ui, ASK, Authorization="Bearer wrong"), ask(ui, ASK, Cookie="dx_ui_session=x")):
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert upgrade(ui) == 401
    bearer = f"Bearer {key}"
    assert ask(ui, ASK, Authorization=bearer).json()["data"]["version"]
    assert upgrade(ui, Authorization=bearer) == 101
    dagsters_client_works(ui, Authorization=bearer)
    assert httpx.get(f"{ui}/server_info").status_code == 200
    for after in ("//elsewhere.example", "/\\elsewhere.example", "http://elsewhere.example"):
        answer = httpx.post(f"{ui}/dx-dagster/sign-in", data={"key": key, "next": after})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert httpx.post(f"{ui}/dx-dagster/sign-in", data={"key": key}, headers={"Origin": "null"}).status_code == 403
    # Nobody said that a proxy on this machine may be believed.
    answer = httpx.post(f"{ui}/dx-dagster/sign-in", data={"key": key}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" not in answer.headers["set-cookie"]

    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{ui}/runs?q=x")
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown or revoked")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{ui}/runs?q=x")
    [cookie] = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Lax", False)
    dagsters_pages_work(page, ui, Authorization=bearer)
    page.goto(f"{ui}/dx-dagster/sign-in")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto(ui)
    expect(page.get_by_label("API key")).to_be_visible()
    context.close()


# Without a browser


def test_our_own_pages_serve_their_hosts_and_redirect_nowhere_else(settings):
    served = settings.model_copy(update={"public_url": "https://dx.example.com/x", "allowed_hosts": "dx.lan"})
    with serving(create_app(served)) as url:
        for host in ("localhost:8000", "127.0.0.1", "dx.example.com", "DX.lan:8443"):
            answer = httpx.get(f"{url}/connections/", headers={"Host": host})
            assert (answer.status_code, answer.headers["location"]) == (307, "/connections")
        for path in ("/connections/", "/connections/sign-in", "/docs", "/"):
            assert httpx.get(f"{url}{path}", headers={"Host": "elsewhere.example"}).status_code == 421
        # What asks by an address, or is signed, or brings a key.
        for path, status in (("/healthz", 200), ("/readyz", 200), ("/api/connections.list", 401)):
            assert httpx.get(f"{url}{path}", headers={"Host": "10.1.2.3"}).status_code == status
        assert httpx.post(f"{url}/webhooks/bitbucket", headers={"Host": "elsewhere.example"}).status_code == 401
        form = httpx.post(f"{url}/connections/sign-in", headers={"Origin": "http://127.0.0.1:1"})
        assert "page of another site" in form.text


def test_forwarded_headers_count_from_named_proxies(start):
    api = start("serve", DX_ALLOWED_HOSTS="dx.example.com", DX_TRUSTED_PROXIES="10.0.0.0/8,127.0.0.1")
    assert statuses_of_wrong_keys(api, "made up, 192.0.2.{number}, 10.1.2.3") == [401] * 22
    assert statuses_of_wrong_keys(api, "192.0.2.{number}, 198.51.100.7") == [401] * 20 + [429] * 2
    assert not says_it_is_plain(api)


def nobodys_forwarded_headers_count(api: str) -> None:
    statuses = statuses_of_wrong_keys(api, "192.0.2.{number}")
    assert set(statuses[:5]) == {401}  # pages from elsewhere have asked without a key as well
    assert set(statuses[-2:]) == {429}
    assert says_it_is_plain(api)


def statuses_of_wrong_keys(api: str, forwarded: str) -> list[int]:
    """Each came through a proxy from another address, as its header says."""
    with httpx.Client(headers={"Authorization": "Bearer wrong"}) as client:
        return [
            client.get(
                f"{api}/api/connections.list", headers={"X-Forwarded-For": forwarded.format(number=number)}
            ).status_code
            for number in range(22)
        ]


def says_it_is_plain(api: str) -> bool:
    headers = {"X-Forwarded-Proto": "https", "Host": "dx.example.com"}
    return "without encryption" in httpx.get(f"{api}/connections/sign-in", headers=headers).text
