"""Dagster's UI as a person sees it."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from dx_dagster_tests.conftest import Running

ASSETS = ("repositories", "members", "pullrequests", "activity", "comments", "commits", "pipelines")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(30_000)
    yield page
    page.close()


def test_lineage_shows_every_asset_and_nothing_covers_it(
    page: Page, start_up: Callable[..., Running], environment: dict[str, str]
) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    running = start_up(environment)
    page.goto(f"{running.ui}/asset-groups")
    for asset in ASSETS:
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_text("repositories", exact=True).first.click(trial=True)  # nothing lies over it
    assert errors == []
