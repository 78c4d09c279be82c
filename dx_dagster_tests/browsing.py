"""A browser for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dx_dagster.assets.steps import STEPS


def chromium() -> str | None:
    """The path of the browser, or None; without a browser, CI fails."""
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI"):
        pytest.fail("chromium is not installed; on Debian: apt-get install chromium")
    return found


@contextmanager
def launched(program: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Skips the test where there is no browser."""
    program = chromium()
    if program is None:
        pytest.skip("chromium is not installed; on Debian: apt-get install chromium")
    with launched(program) as browser:
        yield browser


def lineage_shows_every_asset_and_nothing_covers_it(page: Page, ui: str) -> None:
    """Checks the lineage page of Dagster's UI."""
    errors: list[str] = []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{ui}/asset-groups")
    for group in ("bitbucket_api", "bitbucket", "unified"):  # the whole graph opens with its groups closed
        expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=30_000)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_text("unified", exact=True).last.click(trial=True)  # nothing lies over the graph
    page.goto(f"{ui}/locations/dx_dagster/asset-groups/bitbucket/list")  # a graph draws what fits the window
    for asset in STEPS:
        expect(page.locator(f"a[href*='/assets/bitbucket/{asset}']").first).to_be_visible(timeout=30_000)
    assert errors == []
