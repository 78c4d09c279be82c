"""A clock of processes that can be set while they run, as an administrator or NTP sets that of a host."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

COMPILER = shutil.which("cc")
_SOURCE = Path(__file__).with_suffix(".c")


class SteppedClock:
    """The environment of such processes; `step` moves the clock of all of them, within a tenth of a second.

    `everything`: the monotonic clocks too, as if time had passed in which the processes did nothing.

    Raises:
        FileNotFoundError: there is no C compiler.
    """

    def __init__(self, folder: Path, *, everything: bool = False) -> None:
        self._shift = folder / "clock"
        library = folder / "stepped_clock.so"
        subprocess.run([COMPILER or "cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._shift)}
        if everything:
            self.environment["STEPPED_CLOCK_ALL"] = "1"
        self.step(0)

    @classmethod
    def inherited(cls) -> Self:
        """The clock of this process, which was started under one."""
        clock = cls.__new__(cls)
        clock._shift = Path(os.environ["STEPPED_CLOCK"])
        return clock

    @property
    def ahead(self) -> int:
        """The seconds by which it is ahead of the host's."""
        return int(self._shift.read_text())

    def step(self, seconds: int) -> None:
        """Sets the clock this many seconds ahead of the host's."""
        draft = self._shift.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._shift)
