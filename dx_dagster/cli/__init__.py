"""The command line: arguments, output and processes."""

import atexit
import gc
import os
import signal
import threading
from types import FrameType

# Dagster loads some hundred thousand permanent objects. Collecting garbage among them took a quarter of the time of a
# short command, partly at exit. So the thresholds are raised before anything is loaded.
gc.set_threshold(100_000, 10, 10)
atexit.register(gc.freeze)


def _end(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"Interrupted. Nothing was started.\n")
    os._exit(1)


# Loading takes a second. Ctrl-C within it would print a traceback of imports; there is nothing to clean up yet.
_is_ours = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _is_ours:
    signal.signal(signal.SIGINT, _end)
try:
    from dx_dagster.cli.app import main
finally:
    if _is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]
