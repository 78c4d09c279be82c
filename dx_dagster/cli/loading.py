"""What a sync loads before its first request, and what it leaves out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Lets these modules look as if they were not installed, unless they are loaded already."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None, which stops an import
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def load_libraries() -> None:
    """Loads libraries that import rich and Pygments where they are installed, and need them for other programs.

    httpx has a command line, structlog draws tracebacks for Dagster's daemon, and Mako, which Alembic loads, makes
    pages of HTML. They take a tenth of a second of CPU time.
    """
    with _hidden("rich", "pygments"):
        for name in ("httpx", "mako.exceptions", "structlog"):
            import_module(name)
