"""`flight`: how close an import comes to the time that its requests take, where the API serves so many at once."""

from dataclasses import replace

from benchmarks.contestants import OURS
from benchmarks.measuring import Measured, prepared
from benchmarks.reporting import Table
from benchmarks.surroundings import Databases, serving
from dx_dagster.sandbox import WorldConfig

_BOUND = 32  # DX_MAX_IN_FLIGHT, as it is by default
_SERVED = (8, 30)


def measure(config: WorldConfig, latency: float, start_up: Measured, place: Databases) -> Table:
    """First imports from an API that answers 8 requests at once, and from one that answers 30.

    `start_up` is an import of next to nothing.
    """
    rows = []
    for serves in _SERVED:
        settings = {"DX_MAX_IN_FLIGHT": str(_BOUND)}
        with serving(config, latency, serves) as server, prepared(OURS, server, place, settings) as run:
            one = replace(run.measure(), wrong=run.wrong())
        ideal = one.requests * latency / serves + start_up.wall
        figures = [f"{one.wall:.1f}", f"{ideal:.1f}", f"{one.wall / ideal:.2f}", f"{one.cpu:.1f}"]
        rows.append([f"{serves}", f"{one.requests:,}", *figures, f"{one.wrong:,}"])
    columns = ["answered at once", "requests", "wall s", "ideal s", "ratio", "CPU s", "wrong"]
    title = f"{config.pull_requests:,} pull requests in {config.repositories:,} repositories, {latency * 1000:.0f} ms"
    return Table(title, columns, rows)
