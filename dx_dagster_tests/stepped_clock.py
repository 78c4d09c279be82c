"""A clock of processes that can be set while they run, as an administrator or NTP sets that of a host."""

import shutil
import subprocess
from pathlib import Path

COMPILER = shutil.which("cc")
_SOURCE = Path(__file__).with_suffix(".c")


class SteppedClock:
    """The environment of such processes; `step` moves the clock of all of them, within a second.

    Raises:
        FileNotFoundError: there is no C compiler.
    """

    def __init__(self, folder: Path) -> None:
        self._shift = folder / "clock"
        library = folder / "stepped_clock.so"
        subprocess.run([COMPILER or "cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._shift)}
        self.step(0)

    def step(self, seconds: int) -> None:
        """Sets the clock this many seconds ahead of the host's."""
        draft = self._shift.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._shift)
