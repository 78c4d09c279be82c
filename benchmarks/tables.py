"""The measurements as tables."""

from collections.abc import Mapping, Sequence

from benchmarks.contestants import IN_FLIGHT, TABLES
from benchmarks.measuring import Measured
from benchmarks.reporting import Table


def side_by_side(measured: Sequence[Measured], pull_requests: int, latency: float) -> Table:
    """`ideal` is how long the requests alone take, with all places always taken."""
    columns = ["import", "requests", "each", "wall s", "ideal s", "CPU s", "peak MiB", "rows", "wrong"]
    rows = [
        [
            one.name, f"{one.requests:,}", f"{one.requests / pull_requests:.2f}", f"{one.wall:.1f}",
            f"{one.requests * latency / IN_FLIGHT:.1f}", f"{one.cpu:.1f}", f"{one.peak:.0f}",
            f"{one.all_rows:,}", _wrong(one),
        ]
        for one in measured
    ]  # fmt: skip
    title = f"First import of {pull_requests:,} pull requests, {latency * 1000:.0f} ms latency"
    return Table(title, columns, rows)


def later(start_up: Measured, syncs: Sequence[Measured]) -> Table:
    """`start_up` is an import of next to nothing: its CPU seconds are Python, Dagster and the database's tables."""
    columns = ["sync", "requests", "wall s", "CPU s", "CPU ms/request above start-up", "rows written", "wrong"]
    rows = [
        [
            one.name, f"{one.requests:,}", f"{one.wall:.1f}", f"{one.cpu:.1f}",
            f"{(one.cpu - start_up.cpu) / one.requests * 1000:.1f}" if one is not start_up else "",
            f"{one.written:,}", _wrong(one),
        ]
        for one in (start_up, *syncs)
    ]  # fmt: skip
    return Table("dx-dagster, one sync after the other", columns, rows)


def by_table(measured: Sequence[Measured], true: Mapping[str, int]) -> Table:
    rows = [[name, f"{true[name]:,}", *(f"{one.rows[name]:,}" for one in measured)] for name in TABLES]
    return Table("Rows", ["table", "there are", *(one.name for one in measured)], rows)


def growth(sizes: Mapping[int, Sequence[Measured]], latency: float) -> Table:
    """Each figure with its growth since the size before."""
    columns = ["pull requests", "import", "requests", "wall s", "CPU s", "peak MiB", "rows", "wrong"]
    rows, before = [], dict[str, list[float]]()
    for size, measured in sizes.items():
        for one in measured:
            figures = [one.requests, one.wall, one.cpu, one.peak, one.all_rows]
            shown = [_grown(value, old) for value, old in zip(figures, before.get(one.name, [0] * 5), strict=True)]
            rows.append([f"{size:,}", one.name, *shown, _wrong(one)])
            before[one.name] = figures
    return Table(f"First imports by size, {latency * 1000:.0f} ms latency", columns, rows)


def per_pull_request(sizes: Mapping[int, Sequence[Measured]]) -> Table:
    columns = ["pull requests", "import", "requests", "wall ms", "CPU ms", "peak KiB", "rows", "sandbox's CPU ms"]
    rows = [
        [
            f"{size:,}", one.name, f"{one.requests / size:.3f}", f"{one.wall / size * 1000:.1f}",
            f"{one.cpu / size * 1000:.1f}", f"{one.peak / size * 1024:.1f}", f"{one.all_rows / size:.1f}",
            f"{one.server_cpu / size * 1000:.1f}",
        ]
        for size, measured in sizes.items()
        for one in measured
    ]  # fmt: skip
    return Table("The same for each pull request", columns, rows)


def _grown(value: float, before: float) -> str:
    shown = f"{value:,.1f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"  # noqa: PLR2004
    return f"{shown} (×{value / before:.1f})" if before else shown  # noqa: RUF001


def _wrong(one: Measured) -> str:
    return "" if one.wrong is None else f"{one.wrong:,}"
