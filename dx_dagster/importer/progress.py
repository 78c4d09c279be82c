"""Who hears how an import in this process goes on, beside Dagster's log: a command's progress display."""

from contextvars import ContextVar

from dx_dagster.importer.workspace import Listener

DISPLAY: ContextVar[Listener | None] = ContextVar("DISPLAY", default=None)
