"""The connections page as a person uses it, in a browser and by hand-made requests."""

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from anyio import to_thread
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect
from pydantic import SecretStr

from dx_dagster.api.app import create_app
from dx_dagster.bitbucket import Retries, Timeouts
from dx_dagster.connections import actions, verification
from dx_dagster.connections.input import new_credential
from dx_dagster.warehouse import api_keys, runs, sync_steps
from dx_dagster.warehouse.connections import connections, credentials
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.sync_steps import Count, StepKey
from dx_dagster.warehouse.webhooks import inbox
from dx_dagster_tests import measured
from dx_dagster_tests.connecting import API_TOKEN, EMAIL, SECOND, TOKEN, on_warehouse
from dx_dagster_tests.delivering import find_untold
from dx_dagster_tests.servers import serving

PHONE: ViewportSize = {"width": 360, "height": 740}
TABLET: ViewportSize = {"width": 768, "height": 1024}
WIDE: ViewportSize = {"width": 1280, "height": 900}
CHANGES = ("new", "sign-out", "1/check", "1/disable", "1/enable", "1/remove", "1/credentials", "1/credentials/1",
           "1/credentials/1/check", "1/credentials/1/disable", "1/credentials/1/remove", "1/webhook/show",
           "1/webhook/rotate", "1/webhook/look", "1/webhook/replay", "1/sync")  # fmt: skip
PAGES_WITH_FORMS = ("/connections/new", "/connections/1", "/connections/1/credentials/1")
ENOUGH_RULES = 20
SCREENSHOTS = os.environ.get("SCREENSHOTS")


@pytest.fixture
def key(database_url) -> str:
    made: SecretStr = on_warehouse(database_url, lambda warehouse: api_keys.create(warehouse, "tests"))
    return made.get_secret_value()


@pytest.fixture
def url(settings, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr(verification, "_TIMEOUTS", Timeouts(connect=1, read=1, write=1, pool=1, total=2))
    monkeypatch.setattr(verification, "_IMPATIENT", Retries(attempts=1, total=1.5, backoff=0.01, patience=1))
    with serving(create_app(settings.model_copy(update={"allowed_hosts": "dx.example.com"}))) as address:
        yield address


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A page on which any complaint of the browser, such as one about the policy, is an error."""
    context = browser.new_context(base_url=url, viewport=WIDE)
    page, complaints = context.new_page(), []
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said.text, said.type) else None)
    page.on("request", lambda request: complaints.append(request.url) if not _is_ours(request.url, url) else None)
    yield page
    context.close()
    assert complaints == []


def _is_complaint(text: str, kind: str) -> bool:
    # A refused form is answered with 422, which the console mentions.
    return kind == "error" and "status of 4" not in text


def _is_ours(address: str, url: str) -> bool:
    return address.startswith((url, "data:"))


def sign_in(page: Page, key: str) -> None:
    page.goto("/connections")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()


def shoot(page: Page, name: str) -> None:
    """Nothing runs over the edge, on the screen as it is or on a phone; pictures where they are asked for."""
    for label, chosen in (("wide", WIDE), ("phone", PHONE)):
        page.set_viewport_size(chosen)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), name
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{label}.png", full_page=True)
    page.set_viewport_size(WIDE)


def accessible(page: Page, name: str, *labels: str) -> None:
    """axe-core finds nothing wrong at three widths, or those of `labels`, in the light and in the dark."""
    widths = {"wide": WIDE, "tablet": TABLET, "phone": PHONE}
    for label, chosen in ((label, widths[label]) for label in labels or widths):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.set_viewport_size(chosen)
            found = Axe().run(page).response
            assert [one["id"] for one in found["violations"]] == [], (name, label, scheme)
            assert len(found["passes"]) > ENOUGH_RULES
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{label}-{scheme}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(WIDE)


def connect(page: Page, token: str = TOKEN) -> None:
    page.goto("/connections/new")
    page.get_by_label("Workspace", exact=True).fill("https://bitbucket.org/acme/")
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Verify and connect").click()


def test_connecting_a_workspace(page, key):
    page.goto("/connections")
    shoot(page, "sign-in")
    sign_in(page, key)
    shoot(page, "empty")
    page.get_by_role("link", name="+ Connection").first.click()
    shoot(page, "new")
    connect(page, "ATCTT3xUnknown")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("invalid_credentials")
    expect(alert).to_contain_text("or be an Atlassian API token")
    expect(alert).to_contain_text("curl -i -H 'Authorization: Bearer YOUR_TOKEN'")
    expect(alert).to_be_focused()
    expect(page.get_by_label("Workspace", exact=True)).to_have_value("https://bitbucket.org/acme/")
    expect(page.get_by_label("Token", exact=True)).to_have_value("")
    assert "ATCTT3xUnknown" not in page.content()
    shoot(page, "refused")
    token, address = page.get_by_label("Token", exact=True), page.get_by_label("E-mail address", exact=True)
    expect(address).to_be_hidden()
    token.fill(EMAIL)
    token.blur()
    expect(address).to_have_value(EMAIL)
    page.get_by_label("Workspace access token").check()
    token.fill(API_TOKEN)
    expect(page.get_by_label("Atlassian API token with its e-mail address")).to_be_checked()
    expect(address).to_be_visible()
    page.get_by_role("button", name="Verify and connect").click()
    expect(page.get_by_role("status")).to_contain_text("the workspace is connected")
    expect(
        page.get_by_text(re.compile(r"First import: 6 repositories, about \d+ pull requests: about"))
    ).to_be_visible()
    shoot(page, "connection")
    page.goto("/connections")
    expect(page.get_by_role("link", name=re.compile("acme"))).to_contain_text("verified")
    shoot(page, "overview")


def test_managing_credentials(page, key, sandbox, database_url):
    sign_in(page, key)
    connect(page)
    page.get_by_text("Add credential").click()
    page.get_by_label("Token", exact=True).fill(SECOND)
    page.get_by_label("Label").fill("<script>alert(1)</script> second")
    page.get_by_label("Expires").fill("2030-01-31")
    page.get_by_role("button", name="Verify and add").click()
    expect(page.get_by_role("status")).to_contain_text("was added")
    card = page.get_by_role("listitem").filter(has_text="second")
    expect(card).to_contain_text("2030-01-31")
    card.get_by_text("Disable…").click()
    card.get_by_label("Why").fill("resting")
    card.get_by_role("button", name="Disable").click()
    expect(card).to_contain_text("Disabled becauseresting")
    shoot(page, "credentials")
    sandbox.tokens[1].revoked = True
    card.get_by_role("button", name="Verify and enable").click()
    expect(card).to_contain_text("invalid_credentials")
    expect(card).to_contain_text("YOUR_TOKEN")
    shoot(page, "failing")
    sandbox.tokens[1].revoked = False
    page.get_by_role("button", name="Verify all").click()
    expect(card.get_by_text("good", exact=True)).to_be_visible()
    card.get_by_text("Remove…").click()
    card.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status")).to_contain_text("its secret erased")
    expect(card).to_have_count(0)
    assert on_warehouse(database_url, lambda w: credentials.usable_ids(w, 1)) == {1}


def test_editing_a_credential(page, key, database_url):
    sign_in(page, key)
    connect(page)
    page.get_by_role("link", name="Edit Access token").click()
    shoot(page, "edit")
    page.get_by_label("Label").fill("importer")
    page.get_by_label("Expires").fill("2030-01-31")
    page.get_by_role("button", name="Verify and save").click()
    expect(page.get_by_role("status")).to_contain_text("was changed")
    card = page.get_by_role("listitem").filter(has_text="importer")
    expect(card).to_contain_text("2030-01-31")
    expect(card).to_contain_text("…0001")
    card.get_by_role("link", name="Edit").click()
    page.get_by_label("Expires").fill("")
    page.get_by_label("New token").fill("ATCTT3xUnknown")
    page.get_by_role("button", name="Verify and save").click()
    expect(page.get_by_role("alert")).to_contain_text("invalid_credentials")
    expect(page.get_by_label("New token")).to_have_value("")
    page.get_by_label("New token").fill(SECOND)
    page.get_by_role("button", name="Verify and save").click()
    expect(card).to_contain_text("…0002")
    expect(card).to_contain_text("not set")
    assert on_warehouse(database_url, lambda w: credentials.usable_ids(w, 1)) == {1}


def test_a_whole_connection_is_disabled_enabled_and_removed(page, key, database_url):
    sign_in(page, key)
    connect(page)
    page.get_by_text("Disable the connection…").click()
    page.get_by_label("Why").last.fill("moving house")
    page.get_by_role("button", name="Disable the connection").click()
    expect(page.get_by_role("status")).to_contain_text("no request is sent over it")
    expect(page.get_by_role("main")).to_contain_text("moving house")
    shoot(page, "disabled")
    assert on_warehouse(database_url, lambda w: credentials.usable_ids(w, 1)) == set()
    page.goto("/connections")
    expect(page.get_by_role("link", name=re.compile("acme"))).to_contain_text("disabled moving house")
    page.get_by_role("link", name=re.compile("acme")).click()
    page.get_by_role("button", name="Verify and enable the connection").click()
    expect(page.get_by_role("status")).to_contain_text("The connection is enabled")
    assert on_warehouse(database_url, lambda w: credentials.usable_ids(w, 1)) == {1}
    page.get_by_text("Remove the connection…").click()
    shoot(page, "removing")
    page.get_by_role("button", name="Remove the connection").click()
    expect(page.get_by_role("status")).to_contain_text("Imported rows stay")
    expect(page.get_by_text("No workspace is connected yet")).to_be_visible()
    assert on_warehouse(database_url, lambda w: w.rows("SELECT secret FROM credentials")) == [("",)]


def test_webhook_secret_is_shown_on_demand_and_rotated(page, key, database_url):
    sign_in(page, key)
    connect(page)
    expect(page.get_by_label("Secret", exact=True)).to_have_count(0)
    expect(page.get_by_label("Address", exact=True)).to_have_value(re.compile(r"/webhooks/bitbucket$"))
    expect(page.get_by_text("at its own pace: no webhook is installed")).to_be_visible()
    page.get_by_role("button", name="Show the secret").click()
    first = page.get_by_label("Secret", exact=True).input_value()
    page.get_by_text("Rotate the secret…").click()
    page.get_by_role("button", name="Rotate").click()
    expect(page.get_by_role("status")).to_contain_text("new secret")
    second = page.get_by_label("Secret", exact=True).input_value()
    assert len({first, second, ""}) == 3
    shoot(page, "webhook")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy = page.locator(".copy").filter(has=page.get_by_label("Secret", exact=True))
    copy.get_by_role("button").click()
    expect(copy.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == second
    find_untold(database_url, 2)
    page.reload()
    expect(page.get_by_text("2, found by reconciles of the last 7 days")).to_be_visible()


def test_the_page_asks_for_a_sync_and_shows_how_it_goes(page, key, settings, database_url):
    on_warehouse(database_url, lambda w: actions.connect(settings, w, "acme", new_credential(SecretStr(TOKEN))))
    sign_in(page, key)
    page.goto("/connections/1")
    page.get_by_role("button", name="Sync now").press("Enter")
    expect(page.get_by_text("No Dagster daemon works on this database")).to_be_visible()
    [asked] = on_warehouse(database_url, connections.asked_syncs)
    assert asked.workspace == "acme"
    page.get_by_role("button", name="Sync now").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("running or asked for already")

    shown = page.locator("#syncs")
    running, ended = StepKey("run-2", "comments", "acme"), StepKey("run-1", "pullrequests", "acme", "sync")
    skipped = [{"repository": "shop", "reason": "GET /2.0/repositories/acme/shop answered 403"}]

    async def sync(warehouse: Warehouse) -> None:
        await connections.sync_began(warehouse, asked)
        await sync_steps.begin(warehouse, ended)
        await sync_steps.end(warehouse, ended, requests=81, written={"a/inserted": 7, "a/updated": 2}, skipped=skipped)
        async with runs.at_work(warehouse, running.run_id):
            await sync_steps.begin(warehouse, running)
            await sync_steps.count(warehouse, running, Count(3, 20, "pull requests", 5))
            await to_thread.run_sync(has_seen.wait, 30)

    has_seen = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(on_warehouse, database_url, sync)
        try:
            expect(shown).to_contain_text("3 of 20 pull requests")  # the script has renewed it
            expect(shown.get_by_role("progressbar", name="comments")).to_have_attribute("value", "3")
            expect(shown).to_contain_text("7 rows new, 2 changed; 81 requests")
            accessible(page, "running", "phone")
        finally:
            has_seen.set()
        done.result()
    expect(shown).to_contain_text("interrupted")  # its process ended without a word
    shown.get_by_text("1 skipped").click()
    expect(shown).to_contain_text("shop (pull requests): GET /2.0/repositories/acme/shop answered 403")


def test_the_page_shows_hook_deliveries_and_budgets_and_replays(page, key, settings, database_url):
    on_warehouse(database_url, lambda w: actions.connect(settings, w, "acme", new_credential(SecretStr(TOKEN))))
    sign_in(page, key)
    page.goto("/connections/1")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, "
            "received_at, attempts, error, set_aside_at) SELECT 1, 'acme', n::text, 'repo:push', '{}', '{}', now(), 5, "
            "'broken', now() FROM generate_series(1, 3) n"
        )
        connection.execute(
            "UPDATE connections SET last_error = 'no_resources: There is no workspace.', failed_at = now(), "
            "failing_since = now() - interval '3 hours'"
        )
        connection.execute(
            "UPDATE budgets SET request_limit = 100, "
            "spent = jsonb_build_array(jsonb_build_array(extract(epoch FROM now()) - 2900, 100))"
        )
    page.get_by_role("button", name="Check it at Bitbucket").click()
    expect(page.locator("#look")).to_contain_text("There is no webhook of dx-dagster")
    expect(page.locator("#failing")).to_contain_text("no_resources: There is no workspace.")
    expect(page.get_by_role("meter")).to_have_attribute("value", "0")
    expect(page.get_by_text(re.compile(r"room again in 1[012] minutes"))).to_be_visible()
    accessible(page, "everything")
    shoot(page, "everything")
    page.get_by_role("button", name="Replay delivery 1", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("applied again within seconds")
    assert on_warehouse(database_url, inbox.depths) == {"acme": 1}
    page.get_by_role("button", name="Replay all 2").click()
    expect(page.get_by_role("button", name="Replay all")).to_have_count(0)
    assert on_warehouse(database_url, inbox.depths) == {"acme": 3}
    page.goto("/connections")
    expect(page.get_by_role("link", name=re.compile("acme"))).to_contain_text("failing")
    accessible(page, "overview", "phone")


def test_keyboard_alone_is_enough(page, key):
    page.goto("/connections")
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Connections")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New connection")).to_be_visible()
    page.get_by_label("Type").focus()
    page.keyboard.press("Tab")
    page.keyboard.type("acme")
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="Workspace access token")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.type(EMAIL)
    page.keyboard.press("Tab")
    page.keyboard.type(API_TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("the workspace is connected")


def test_it_works_without_scripts(browser, url, key):
    context = browser.new_context(base_url=url, java_script_enabled=False)
    page = context.new_page()
    sign_in(page, key)
    connect(page, API_TOKEN)
    expect(page.get_by_role("alert")).to_contain_text("Choose “Atlassian API token with its e-mail address”")
    expect(page.get_by_label("Atlassian API token with its e-mail address")).to_be_checked()
    connect(page)
    expect(page.get_by_role("status")).to_contain_text("the workspace is connected")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    context.close()


def test_the_reference_page(page, key):
    sign_in(page, key)
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="Data Cloud API")).to_be_visible()
    shoot(page, "reference")


def test_charts_are_drawn_from_their_tables_and_everybody_can_read_them(page, url, key, database_url, settings):
    this_week = measured.store(database_url)
    page.goto("/insights?repository=shop")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview of acme/shop")).to_be_visible()
    drawn = page.locator("html[data-charts=drawn]")
    expect(drawn).to_be_attached()
    lead = page.get_by_role("region", name="Lead time", exact=True)
    # Three lines of nine weeks, with a mark for each; the week without figures is a gap.
    assert lead.locator(".mark-symbol.layer_1_marks path").count() == 3 * (measured.WEEKS - 1)
    assert lead.locator("svg .mark-line").count() > 0
    assert lead.locator("svg .role-legend-label text").count() == 3
    lead.locator(".mark-symbol.layer_1_marks path").last.hover()
    expect(page.locator("#vg-tooltip-element.visible")).to_contain_text(f"{this_week}")
    page.mouse.move(0, 0)
    bars = page.get_by_role("region", name="Deployment frequency").locator(".mark-rect path")
    assert bars.count() == measured.WEEKS
    page.get_by_label("Team").focus()
    page.get_by_label("Repository").select_option("All")
    page.get_by_label("Team").select_option("Shop & Co/Platform")
    page.get_by_role("button", name="Show").press("Enter")
    expect(page.get_by_role("heading", name="Overview of Shop & Co/Platform")).to_be_visible()
    expect(drawn).to_be_attached()
    page.get_by_text("Table of lead time").press("Enter")
    expect(page.get_by_role("rowheader", name=f"{this_week} so far")).to_be_visible()
    accessible(page, "insights", "phone")
    shoot(page, "insights")
    page.get_by_role("link", name="Data quality").click()
    expect(page.get_by_role("heading", name="Data quality")).to_be_visible()
    accessible(page, "data-quality", "phone")
    shoot(page, "data-quality")
    reports_are_drawn(page, settings.report_folder)

    plain = page.context.browser.new_context(
        base_url=url, java_script_enabled=False, storage_state=page.context.storage_state()
    )
    without = plain.new_page()
    without.goto("/insights/load")
    expect(without.get_by_role("rowheader").first).to_be_visible()
    expect(without.get_by_text("without names")).to_be_visible()
    plain.close()


# Without a browser


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def form_token(text: str) -> str:
    found = re.search(r'name="csrf_token" value="([0-9a-f]+)"', text)
    assert found
    return found[1]


def signed_in(client: httpx.Client, key: str) -> str:
    """Signs in and returns the token of the session's forms."""
    token = form_token(client.get("/connections/sign-in").text)
    assert client.post("/connections/sign-in", data={"key": key, "csrf_token": token}).status_code == 303
    return form_token(client.get("/connections").text)


def test_nothing_is_shown_or_done_without_a_session(client, key):
    for path in ("/connections", "/connections/new", "/connections/1", "/connections/1/credentials/1"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/connections/sign-in")
    token = signed_in(client, key)
    client.cookies.clear()
    for path in CHANGES:
        assert client.post(f"/connections/{path}", data={"csrf_token": token}).status_code == 303


def test_every_form_needs_its_token(client, key, settings, database_url):
    new = new_credential(SecretStr(TOKEN))
    on_warehouse(database_url, lambda warehouse: actions.connect(settings, warehouse, "acme", new))
    assert client.post("/connections/sign-in", data={"key": key}).status_code == 403
    right = signed_in(client, key)
    for path in CHANGES:
        for token in ("", "0" * 64, "é", right[:-1]):
            assert client.post(f"/connections/{path}", data={"csrf_token": token}).status_code == 403
        assert client.post(f"/connections/{path}").status_code == 403
    for text in (client.get(path).text for path in PAGES_WITH_FORMS):
        assert text.count('method="post"') == text.count('name="csrf_token"') >= 2
    assert on_warehouse(database_url, lambda w: credentials.usable_ids(w, 1)) == {1}


def test_a_workspace_is_connected_once_whatever_the_case_of_its_name(client, key, settings, database_url):
    on_warehouse(
        database_url, lambda warehouse: actions.connect(settings, warehouse, "acme", new_credential(SecretStr(TOKEN)))
    )
    form = {"workspace": "ACME", "secret": SECOND, "csrf_token": signed_in(client, key)}
    answer = client.post("/connections/new", data=form)
    assert answer.status_code == 422
    assert "under the name acme" in answer.text
    assert len(on_warehouse(database_url, connections.all_connections)) == 1


def test_cookies_and_headers(client, key):
    first = client.get("/connections/sign-in")
    answer = client.post("/connections/sign-in", data={"key": key, "csrf_token": form_token(first.text)})
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("dx_session="))
    assert {"HttpOnly", "SameSite=lax", "Path=/connections"} <= set(cookie.split("; "))
    assert "Secure" not in cookie.split("; ")
    assert key not in cookie
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    away = client.get("/connections/sign-in", headers={"Host": "dx.example.com"})
    assert all("Secure" in value.split("; ") for value in away.headers.get_list("set-cookie"))
    assert "opened without encryption" in away.text


def test_a_link_signs_in_once(client, database_url):
    made: SecretStr = on_warehouse(database_url, lambda warehouse: api_keys.create_link(warehouse, "demo"))
    link = {"once": made.get_secret_value()}
    away = client.get("/connections/sign-in", params=link, headers={"Host": "dx.example.com"})
    assert away.status_code == 401  # and the link is not used
    client.cookies.set("dx_session", link["once"])
    assert client.get("/connections").status_code == 303
    client.cookies.clear()
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: httpx.get(f"{client.base_url}/connections/sign-in", params=link), range(8)))
    assert sorted(answer.status_code for answer in answers) == [303, *[401] * 7]
    [opened] = [answer for answer in answers if answer.status_code == 303]
    client.cookies.set("dx_session", opened.cookies["dx_session"])
    assert client.get("/connections").status_code == 200
    assert on_warehouse(database_url, lambda warehouse: api_keys.revoke(warehouse, "demo"))
    assert client.get("/connections").status_code == 303


@pytest.mark.parametrize("ending", ["expired", "revoked"])
def test_a_link_is_worthless_later(client, database_url, ending):
    made: SecretStr = on_warehouse(database_url, lambda warehouse: api_keys.create_link(warehouse, "demo"))
    with psycopg.connect(database_url) as connection:
        [[left]] = connection.execute("SELECT expires_at - now() FROM api_sessions").fetchall()
        assert left <= api_keys.LINK_LASTS
        if ending == "expired":
            connection.execute("UPDATE api_sessions SET expires_at = now()")
    if ending == "revoked":
        on_warehouse(database_url, lambda warehouse: api_keys.revoke(warehouse, "demo"))
    answer = client.get("/connections/sign-in", params={"once": made.get_secret_value()})
    assert (answer.status_code, "dx_session" in answer.cookies) == (401, False)


def test_the_sign_in_page_names_the_home_to_this_machine_alone(settings):
    with serving(create_app(settings.model_copy(update={"allowed_hosts": "dx.example.com"}))) as url:
        for headers, is_named in ({}, True), ({"Host": "dx.example.com"}, False):
            told = httpx.get(f"{url}/connections/sign-in", headers=headers).text
            assert "api-keys create NAME" in told
            assert (f"DX_HOME={settings.home}" in told) == is_named


def test_wrong_and_revoked_keys(client, key, database_url):
    token = form_token(client.get("/connections/sign-in").text)
    for wrong in ("", "wrong", key[:-1]):
        answer = client.post("/connections/sign-in", data={"key": wrong, "csrf_token": token})
        assert (answer.status_code, "unknown or revoked" in answer.text) == (401, True)
    statuses = [
        client.post("/connections/sign-in", data={"key": f"guess {n}", "csrf_token": token}).status_code
        for n in range(20)
    ]
    assert statuses[-1] == 429
    with httpx.Client(base_url=str(client.base_url)) as other:
        session = on_warehouse(database_url, _session_of)
        other.cookies.set("dx_session", session.get_secret_value())
        assert other.get("/connections").status_code == 200
        assert on_warehouse(database_url, lambda w: api_keys.revoke(w, "tests"))
        assert other.get("/connections").status_code == 303


async def _session_of(warehouse: Warehouse) -> SecretStr:
    return await api_keys.open_session(warehouse, (await api_keys.all_keys(warehouse))[0])


def test_signing_out_ends_the_session(client, key):
    token = signed_in(client, key)
    session = client.cookies["dx_session"]
    assert client.post("/connections/sign-out", data={"csrf_token": token}).status_code == 303
    client.cookies.clear()
    client.cookies.set("dx_session", session)
    assert client.get("/connections").status_code == 303


def test_unknown_pages_and_oversized_forms(client, key):
    token = signed_in(client, key)
    for path in ("/connections/7", "/connections/x", "/connections/99999999999999", "/connections/static/app.py"):
        assert client.get(path).status_code == 404
    data = {"csrf_token": token, "workspace": "x" * 300_000}
    assert client.post("/connections/new", data=data).status_code == 400


def reports_are_drawn(page: Page, folder: Path) -> None:
    """A report with each kind of chart: a mark for each row of the eight largest series."""
    wanted = {
        "line": ("xAxis: day, yAxes: [n, twice]", ".mark-symbol.layer_1_marks path", 40),
        "stacked_area": ("xAxis: day, yAxes: [n, twice]", ".mark-area path", 2),
        "stacked_bar": ("xAxis: name, yAxes: [n], groupByColumn: kind, orientation: horizontal", ".mark-rect path", 16),
        "scatter": ("xAxis: n, yAxes: [twice]", ".mark-symbol.role-mark path", 20),
        "pie": ("labelColumn: name, valueColumn: n", ".mark-arc path", 8),
        "table": ("", "tbody tr", 20),
    }
    tiles = "".join(
        f"- title: A {chart}\n  chart_type: {chart}\n  chart_config: {{{config}}}\n"
        "  sql: SELECT date '2026-01-01' + n AS day, 'repository ' || n AS name, 'k' || n % 10 AS kind, n, "
        "2 * n AS twice FROM generate_series(1, 20) n\n"
        for chart, (config, *_) in wanted.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "every chart.yaml").write_text(f"name: Every chart\ntiles:\n{tiles}")
    page.get_by_role("link", name="Reports").click()
    page.get_by_role("link", name="Every chart").click()
    expect(page.get_by_role("heading", name="Every chart")).to_be_visible()
    expect(page.locator("html[data-charts=drawn]")).to_be_attached()
    for chart, (_, marks, number) in wanted.items():
        region = page.get_by_role("region", name=f"A {chart}", exact=True)
        expect(region.locator(marks)).to_have_count(number)
    accessible(page, "report", "phone")
    shoot(page, "report")
