"""The commands: argument parsing and what a person sees."""

import atexit
import gc

# Dagster loads some hundred thousand objects that stay. Looking through them for garbage again and again, and once more
# as the process ends, took a quarter of a short command's time. So before anything is loaded:
gc.set_threshold(100_000, 10, 10)
atexit.register(gc.freeze)

from dx_dagster.cli.app import main  # noqa: E402

__all__ = ["main"]
