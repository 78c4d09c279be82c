"""The log of runs on standard error, as JSON where DX_LOG_FORMAT asks for it."""

import logging
import sys

from dagster import _loggers

from dx_dagster.telemetry import json_logs


def set_up() -> None:
    """Sets up the logs of a code server, or of the process of a run.

    A run whose configuration names no logger gets the coloured one, and Dagster has no setting for another. So the
    function that makes it is replaced; `pyproject.toml` limits the versions of Dagster to those that have it.
    """
    if json_logs.set_up():
        _loggers.create_console_logger = _json_logger  # type: ignore[attr-defined]


def _json_logger(name: str, level: str | int) -> logging.Logger:
    logger = logging.getLoggerClass()(name, level)  # as Dagster's: of this run alone
    logger.addHandler(json_logs.handler(sys.stderr))
    return logger
