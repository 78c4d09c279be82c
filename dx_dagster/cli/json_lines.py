"""Lines of JSON logs, as `up` passes them on."""

import orjson

from dx_dagster.clock import HOST


def with_service(name: str, line: bytes) -> bytes:
    """The line as JSON with the service's name. Text that a library printed becomes the event of an object."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        text = line.rstrip(b"\r\n").decode(errors="replace")
        found = {"timestamp": HOST.now().isoformat(), "event": text}
    return orjson.dumps({**found, "service": name}, option=orjson.OPT_APPEND_NEWLINE)
