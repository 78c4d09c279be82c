"""Takes the pictures of the documentation from a running demo, of lineage, charts and insights: `make picture`."""

import os
import re
import sys
import tempfile
from pathlib import Path

from dx_dagster_tests.browsing import chromium, launched
from dx_dagster_tests.conftest import Running

DOCS = Path(__file__).parent.parent / "docs"
# The group of the imported assets is open, the others are closed: all of their assets would be too small to read.
_GROUPS = "%20or%20".join(f"group%3A%22{group}%22" for group in ("bitbucket", "unified", "measures"))
_GRAPH = f"asset-groups~{_GROUPS}/?expanded=global%40global%3Abitbucket"
_MARGIN = 12
# The border of an asset is green once Dagster's UI knows that it was materialized.
_HAS_STATES = r"""
() => [...document.querySelectorAll("foreignObject *")].some(one => {
    const [red, green, blue] = getComputedStyle(one).borderTopColor.match(/\d+/g).map(Number)
    return green > red + 60 && green > blue + 20
})"""


def take(ui: str, program: str, to: Path) -> None:
    """Writes the picture of the graph alone, without what Dagster's UI has around it."""
    with launched(program) as browser:
        page = browser.new_page(viewport={"width": 2000, "height": 1500})
        page.goto(f"{ui}/{_GRAPH}")
        page.get_by_text("repositories", exact=True).last.wait_for(timeout=30_000)
        page.wait_for_function(_HAS_STATES, timeout=120_000)
        page.wait_for_timeout(4_000)  # the graph moves into place
        boxes = page.evaluate(
            "() => [...document.querySelectorAll('foreignObject')].map(one => one.getBoundingClientRect().toJSON())"
        )
        left, top = (min(box[side] for box in boxes) - _MARGIN for side in ("left", "top"))
        right, bottom = (max(box[side] for box in boxes) + _MARGIN for side in ("right", "bottom"))
        page.screenshot(path=to, clip={"x": left, "y": top, "width": right - left, "height": bottom - top})


def take_insights(sign_in: str, program: str, to: Path) -> None:
    """Writes the picture of the overview; `sign_in` is a link that signs in once."""
    with launched(program) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(sign_in)
        page.get_by_role("link", name="Insights").click()
        page.locator("html[data-charts=drawn]").wait_for(timeout=30_000)
        page.screenshot(path=to, full_page=True)


def take_charts(ui: str, program: str, to: Path) -> None:
    """Writes the picture of the charts that Dagster's UI shows of the workspace's weeks."""
    with launched(program) as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{ui}/assets/measures/weeks?view=partitions&partition=acme")
        page.get_by_role("img", name="Throughput").wait_for(timeout=60_000)
        page.wait_for_function("() => [...document.images].every((one) => one.naturalWidth)", timeout=60_000)
        page.screenshot(path=to)


def main() -> None:
    program = chromium()
    if program is None:
        sys.exit("chromium is not installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="dx-picture-") as home:
        running = Running({**os.environ, "DX_HOME": f"{home}/demo"}, "demo")
        try:
            take(running.ui, program, DOCS / "lineage.png")
            take_charts(running.ui, program, DOCS / "charts.png")
            link = re.search(r"http\S+/connections/sign-in\?once=\S+", running.output)
            if link is None:
                sys.exit("The demo prints no link that signs in.")
            take_insights(link[0], program, DOCS / "insights.png")
        finally:
            running.interrupt()


if __name__ == "__main__":
    main()
