"""The command line: arguments, output and processes."""

import atexit
import gc

# Dagster loads some hundred thousand permanent objects. Collecting garbage among them took a quarter of the time of a
# short command, partly at exit. So the thresholds are raised before anything is loaded.
gc.set_threshold(100_000, 10, 10)
atexit.register(gc.freeze)

from dx_dagster.cli.app import main  # noqa: E402

__all__ = ["main"]
