"""The progress display of a command that runs an import in its own process, besides Dagster's log."""

from contextvars import ContextVar

from dx_dagster.importer.workspace import Listener

DISPLAY: ContextVar[Listener | None] = ContextVar("DISPLAY", default=None)
