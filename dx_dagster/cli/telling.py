"""What `up` and `demo` say while they run: lines on standard output, or of their JSON log."""

import logging

from dx_dagster.telemetry import json_logs

_log = logging.getLogger("dx_dagster.up")


def tell(message: str) -> None:
    if json_logs.are_set_up():
        _log.info(message.strip("\n"))
    else:
        print(message, flush=True)
