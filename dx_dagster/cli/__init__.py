"""The command line: arguments, output and processes."""

import atexit
import gc
import os
import signal
import threading
from types import FrameType

# Dagster loads 400,000 permanent objects. Collecting garbage among them took a quarter of the time of a short command,
# partly at exit. So a short command collects none; the first collection of a longer one leaves out what is loaded.
_UNTIL_LOADED = (600_000, 10, 10)
gc.set_threshold(*_UNTIL_LOADED)
atexit.register(gc.freeze)


def _leave_out_what_is_loaded(_phase: str, _info: dict[str, int]) -> None:
    gc.callbacks.remove(_leave_out_what_is_loaded)
    if gc.get_threshold() == _UNTIL_LOADED:  # an import and a service set their own
        gc.freeze()
        gc.set_threshold(100_000, 10, 10)


gc.callbacks.append(_leave_out_what_is_loaded)


def _end(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, b"Interrupted. Nothing was started.\n")
    os._exit(1)


# Pydantic would look through all installed distributions for plugins.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

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
