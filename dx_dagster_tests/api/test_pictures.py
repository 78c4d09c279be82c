"""The pictures that Dagster's UI shows beside the measures, as its page asks for them."""

import importlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
from cryptography.fernet import Fernet

from dx_dagster.api.app import create_app
from dx_dagster.insights import pictures
from dx_dagster.insights.figures import DRAWINGS
from dx_dagster.settings import Settings
from dx_dagster_tests import measured
from dx_dagster_tests.servers import serving

SHOWN = re.compile(r"\[!\[([^\]]+)\]\(([^)]+)\)\]\(([^)]+)\)")
# What a browser sends for an image of a page of another host.
AS_AN_IMAGE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}


def test_a_signed_address_opens_one_picture_as_an_image_of_any_page_and_no_other_address_does(
    environment, database_url, monkeypatch, tmp_path
):
    settings = Settings.model_validate({name: value for name, value in environment.items() if name.startswith("DX_")})
    before = pictures.keys(settings)
    with serving(create_app(settings)) as url, httpx.Client(timeout=30, headers=AS_AN_IMAGE) as browser:
        measured.store(database_url)
        written = pictures.markdown("measures/weeks", "acme", url, before)
        assert len(written) < 1000  # longer Markdown is hidden behind a button
        addresses = {title: address for title, address, _ in SHOWN.findall(written)}
        throughput, rate = addresses["Throughput"], addresses["Change-failure rate"]

        answer = browser.get(throughput)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        [bars] = re.findall(r'class="mark-rect role-mark marks".*?</g>', answer.text, re.DOTALL)
        assert bars.count("<path") == measured.WEEKS
        assert browser.get(rate).text.count(">Change-failure rate<") == 2  # a title and one legend
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "vl_convert" not in sys.modules  # it would keep 100 MB

        known = {"If-None-Match": answer.headers["etag"]}
        assert (browser.get(throughput, headers=known).status_code, browser.get(throughput).text) == (304, answer.text)
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE weekly_measures SET merged_count = merged_count + 1")
        assert browser.get(throughput, headers=known).text not in {"", answer.text}

        for address in (
            throughput.partition("?")[0],
            throughput[:-1],
            throughput.replace("acme", "other"),
            throughput.replace("throughput", "cycle-time"),
            throughput.partition("?")[0] + "?" + rate.partition("?")[2],
        ):
            refused = browser.get(address)
            assert (refused.status_code, "<svg" in refused.text) == (401, False), address
        unknown = SHOWN.findall(pictures.markdown("measures/weeks", "other", url, before))[0][1]
        assert browser.get(unknown).status_code == 404
        monkeypatch.setattr(pictures, "PROGRAM", tmp_path / "missing.py")
        failed = browser.get(addresses["Deployment frequency"])
        assert (failed.status_code, failed.text.startswith("The picture could not be drawn.")) == (503, True)
        page = SHOWN.findall(written)[0][2]
        assert browser.get(page).status_code == 403  # the page itself needs a session, and is embedded nowhere

    keys = f"{Fernet.generate_key().decode()},{environment['DX_SECRET_KEYS']}"
    rotated = pictures.keys(Settings.model_validate({"DX_SECRET_KEYS": keys}))
    signature = httpx.URL(throughput).params["signature"]
    assert pictures.is_signed("acme", "throughput", signature, rotated)
    assert throughput not in pictures.markdown("measures/weeks", "acme", url, rotated)


def test_charts_that_are_asked_for_at_the_same_time_are_the_same_as_one_after_another():
    from dx_dagster.insights import charts  # noqa: PLC0415 - Altair takes a second

    def made(workers: int) -> list[object]:
        importlib.reload(charts)  # without the ones that it keeps
        with ThreadPoolExecutor(workers) as threads:
            return [*threads.map(charts.specification, DRAWINGS)]

    switched = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        expected = made(1)
        assert all(made(len(DRAWINGS)) == expected for _ in range(4))
    finally:
        sys.setswitchinterval(switched)
