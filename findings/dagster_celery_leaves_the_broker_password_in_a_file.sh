#!/usr/bin/env bash
# dagster-celery 0.29.27: `dagster-celery worker start` writes the broker's address, with its password, into a file that
# every user of the machine may read, and leaves it there.
#
# Expected: a value that the configuration takes from the environment (`env: BROKER`) stays in the environment.
# Seen: DAGSTER_HOME/dagster_celery/config/UUID/dagster_celery_config.py holds it, with mode 0644 under the usual umask.
# Each start makes another one; the source says that nothing removes them. `dx-dagster worker` takes the configuration
# from the run launcher of dagster.yaml, and writes no file (dx_dagster/cli/worker.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dagster==1.13.27 dagster-celery==0.29.27 \
  celery==5.7.0 kombu==5.7.0 redis==8.1.0
umask 022
mkdir "$folder/home"
printf 'execution:\n  config:\n    broker: {env: BROKER}\n' > "$folder/worker.yaml"
# Port 1 answers nobody; the file is there before the worker tries.
DAGSTER_HOME="$folder/home" BROKER=redis://:a-password@127.0.0.1:1/0 PATH="$folder/venv/bin:$PATH" \
  timeout 120 dagster-celery worker start -A dagster_celery.app -y "$folder/worker.yaml" >"$folder/log" 2>&1 &
worker=$!
for _ in $(seq 120); do
  if grep -qr a-password "$folder/home"; then break; fi
  sleep 1
done
sleep 5
kill "$worker"
wait "$worker" || true
"$folder/venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -E '^(dagster|dagster-celery|celery) '
found="$(grep -rl a-password "$folder/home")"
echo "After the worker has ended: ${found#"$folder"/}, mode $(stat -c %a "$found")"
test "$(stat -c %a "$found")" = 644
