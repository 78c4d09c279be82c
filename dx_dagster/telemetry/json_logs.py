"""Logs as JSON: one object a line, with the run and the workspace that the line is about (DX_LOG_FORMAT=json).

The names of the fields are structlog's, as in the logs that Dagster's own programs write with `--log-format json`.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from dx_dagster.settings import Settings

_FIRST = ("timestamp", "level", "logger", "event", "run_id", "workspace")
_DAGSTERS = ("dagster", "dagster-webserver")  # a code server has coloured handlers before it loads us
_LOGGERS = ("dx_dagster", "uvicorn", "uvicorn.access", "uvicorn.error")

_about: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("about", default=())
_handler: logging.Handler | None = None


@contextmanager
def about(run_id: str | None = None, workspace: str | None = None) -> Iterator[None]:
    """Adds the run and the workspace to all lines that are logged within the block."""
    given = (("run_id", run_id), ("workspace", workspace))
    before = _about.get()
    _about.set(before + tuple((name, value) for name, value in given if value))
    try:
        yield
    finally:
        _about.set(before)


def are_on() -> bool:
    return Settings.read().log_format == "json"


def are_set_up() -> bool:
    return _handler is not None


def set_up(stream: TextIO | None = None) -> bool:
    """Makes this process log in JSON, where the setting asks for it. Returns whether it does.

    Libraries are heard from WARNING on: httpx writes a line for each request at INFO.
    """
    global _handler  # noqa: PLW0603 - logging is set up once for a process
    if not are_on():
        return False
    if _handler is None:
        _handler = handler(stream or sys.stderr)
        logging.getLogger().addHandler(_handler)
        logging.captureWarnings(capture=True)
        for name in _DAGSTERS:
            logging.getLogger(name).handlers.clear()
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
    return True


def complain(message: str) -> None:
    """Writes the error that ends a command on standard error."""
    logger = logging.getLogger("dx_dagster")
    handler(sys.stderr).handle(logger.makeRecord(logger.name, logging.ERROR, "", 0, message, (), None))


def handler(stream: TextIO) -> logging.Handler:
    """A handler that writes JSON to the stream."""
    import structlog

    made = logging.StreamHandler(stream)
    made.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
            ],
            processors=[_add_context, structlog.processors.JSONRenderer(ensure_ascii=False)],
        )
    )
    return made


def _add_context(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds what the line is about: what the block says, else what Dagster knows of the run."""
    record = line.pop("_record")
    line.pop("_from_structlog", None)
    if meta := getattr(record, "dagster_meta", None):
        line.update(_of_dagster(meta, line["event"]))
    line.update(_about.get())
    return {**{name: line[name] for name in _FIRST if name in line}, **line}


def _of_dagster(meta: MutableMapping[str, Any], message: str) -> dict[str, Any]:
    """The fields of a line in the log of a run."""
    said, event, tags = meta["orig_message"] or "", meta["dagster_event"], meta["job_tags"]
    found = {
        "event": said + message.partition(said)[2] if said else message,  # an event's error stands behind
        "run_id": meta["run_id"],
        "workspace": tags.get("dx/workspace") or tags.get("dagster/partition"),
        "job": meta["job_name"],
        "step": meta["step_key"],
        "dagster_event": None if event is None else event.event_type_value,
    }
    return {name: value for name, value in found.items() if value is not None}
