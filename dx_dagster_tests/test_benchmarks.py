"""`make bench`, on a world so small that it takes seconds; dlt, which has an environment of its own, is left out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contestants import TABLES

ROOT = Path(__file__).parent.parent


@pytest.mark.timing
def test_both_ways_import_every_row_and_ours_asks_less():
    arguments = [
        "compare",
        "--pull-requests",
        "60",
        "--latency",
        "0",
        "--only",
        "ours",
        "--only",
        "endpoints",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ours, endpoints = found["imports"]
    assert ours["rows"] == endpoints["rows"] == {table: found["true"][table] for table in TABLES}
    assert ours["requests"] < endpoints["requests"]
    assert min(ours["wall"], ours["cpu"], ours["peak"], endpoints["wall"], endpoints["cpu"], endpoints["peak"]) > 0
    _, unchanged, changed = found["syncs"]
    assert [sync["wrong"] for sync in found["syncs"]] == [0, 0, 0]
    assert unchanged["written"] == 0 < changed["written"]
