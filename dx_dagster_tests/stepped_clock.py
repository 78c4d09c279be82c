"""A clock of processes that can be set while they run, as an administrator or NTP sets that of a host."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

COMPILER = shutil.which("cc")
_SOURCE = Path(__file__).with_suffix(".c")


class ClockFile:
    """The file that says by how many seconds the clock is ahead of the host's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def inherited(cls) -> Self:
        """That of this process, which was started under such a clock."""
        return cls(Path(os.environ["STEPPED_CLOCK"]))

    @property
    def ahead(self) -> int:
        return int(self._path.read_text())

    def step(self, seconds: int) -> None:
        """Sets the clock this many seconds ahead of the host's."""
        draft = self._path.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._path)


class SteppedClock(ClockFile):
    """The environment of such processes; `step` moves the clock of all of them, within a tenth of a second.

    `everything`: the monotonic clocks too, as if time had passed in which the processes did nothing.

    Raises:
        FileNotFoundError: there is no C compiler.
    """

    def __init__(self, folder: Path, *, everything: bool = False) -> None:
        super().__init__(folder / "clock")
        library = folder / "stepped_clock.so"
        command = [COMPILER or "cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._path)}
        if everything:
            self.environment["STEPPED_CLOCK_ALL"] = "1"
        self.step(0)
