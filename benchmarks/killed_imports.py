"""`killed`: what an import costs that is killed again and again, beside an undisturbed one."""

import subprocess
import time
from dataclasses import replace

from benchmarks.contestants import OURS
from benchmarks.measuring import Measured, Run, prepared
from benchmarks.reporting import Table
from benchmarks.surroundings import Databases, Server, serving
from dx_dagster.sandbox import WorldConfig

_LOOKED_AT_EVERY = 0.02  # seconds


def measure(pull_requests: int, times: int, latency: float, place: Databases) -> Table:
    """Imports one workspace undisturbed, and once more with SIGKILL after each of so many equal shares of it."""
    config = WorldConfig(pull_requests=pull_requests)
    with serving(config, latency) as server, prepared(OURS, server, place) as run:
        undisturbed = replace(run.measure("undisturbed"), wrong=run.wrong())
    with serving(config, latency) as server, prepared(OURS, server, place) as run:
        server.requests()  # those of `connect`
        lost = sum(_kill(run, server, share=undisturbed.requests // (times + 1)) for _ in range(times))
        rest = run.measure(f"killed {times} times")
        killed = replace(rest, requests=lost + rest.requests, wrong=run.wrong())
    rows = [_row(one, undisturbed) for one in (undisturbed, killed)]
    title = f"Imports of {pull_requests:,} pull requests, {latency * 1000:.0f} ms latency"
    return Table(title, ["import", "requests", "beside undisturbed", "rows", "wrong"], rows)


def _kill(run: Run, server: Server, share: int) -> int:
    """Starts an import and kills it after so many requests; returns their number."""
    with subprocess.Popen(
        run.contestant.command, env=run.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while server.count() < share and process.poll() is None:
            time.sleep(_LOOKED_AT_EVERY)
        process.kill()
    return server.requests()


def _row(one: Measured, undisturbed: Measured) -> list[str]:
    share = one.requests / undisturbed.requests
    return [one.name, f"{one.requests:,}", f"{share:.2f}", f"{one.all_rows:,}", f"{one.wrong:,}"]
