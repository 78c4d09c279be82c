#!/usr/bin/env bash
# dagster 1.13.27: a resource object that has a key of its own and that two other resources hold is opened three times
# in a run. The same one configured at launch is opened once and shared.
#
# Expected: a run opens one resource object once; two resources that are given the same pool share it.
# Seen: `Pool()` under the key `pool`, and in `Reader(pool=pool)` and `Writer(pool=pool)`, calls `yield_for_execution`
# three times, on three copies. `Pool.configure_at_launch()` in the same places calls it once, and all three are the
# same object, although nothing is configured at launch. So a resource that holds a lock, a database pool or a rate limit
# must be nested in the second way (dx_dagster/resources.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27
cat > "$folder/run.py" <<'PYTHON'
import sys
from contextlib import contextmanager
from importlib.metadata import version

import dagster as dg


class Pool(dg.ConfigurableResource):
    size: int = 4

    @contextmanager
    def yield_for_execution(self, context):
        OPENED.append(self)
        yield self


class Reader(dg.ConfigurableResource):
    pool: dg.ResourceDependency[Pool]


class Writer(dg.ConfigurableResource):
    pool: dg.ResourceDependency[Pool]


OPENED: list[Pool] = []
SHARED: list[bool] = []


@dg.op
def look(pool: Pool, reader: Reader, writer: Writer) -> None:
    SHARED.append(pool is reader.pool is writer.pool)


def run(pool) -> tuple[int, bool]:
    OPENED.clear()
    SHARED.clear()
    resources = {"pool": pool, "reader": Reader(pool=pool), "writer": Writer(pool=pool)}

    @dg.job(executor_def=dg.in_process_executor, resource_defs=resources)
    def job() -> None:
        look()

    assert job.execute_in_process().success
    return len(OPENED), SHARED[0]


configured, at_launch = run(Pool()), run(Pool.configure_at_launch())
print(f"Python {sys.version.split()[0]}, dagster {version('dagster')}")
print(f"Pool(): opened {configured[0]} times, shared: {configured[1]}")
print(f"Pool.configure_at_launch(): opened {at_launch[0]} times, shared: {at_launch[1]}")
sys.exit((configured, at_launch) != ((3, False), (1, True)))
PYTHON
DAGSTER_HOME="" DAGSTER_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" "$folder/run.py" 2>"$folder/log" || {
  cat "$folder/log" >&2
  exit 1
}
