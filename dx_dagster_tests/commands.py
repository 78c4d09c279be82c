"""The commands, each in a process of its own: started as a person does, or forked from one that has loaded Dagster.

A forked command has its own environment, arguments, output and exit status, and comes without the two seconds that most
of its imports take (`dx_dagster_tests.preloaded`). What is about the process itself (how it starts, who sees its
arguments, which imports it needs) is tested with `run_process`.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

Done = subprocess.CompletedProcess[str]
SECONDS = 280

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["dx_dagster_tests.preloaded"])


def run_new(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    command = [sys.executable, "-m", "dx_dagster.cli", *arguments]
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=SECONDS, check=False)


class Started:
    """A forked command, at work until the end of the block."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._arguments = list(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="dx-command-")
        self._output, self._errors = (Path(self._folder.name) / name for name in ("output", "errors"))
        given = (self._arguments, dict(environment), Path.cwd(), self._output, self._errors)
        self._process = _FORKING.Process(target=_command, args=given)
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    @property
    def is_at_work(self) -> bool:
        return self._process.exitcode is None

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.read_text() if self._errors.exists() else ""

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid or 0, number)

    def ended(self, seconds: float = 60) -> Done:
        """Waits for its end."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            said = (self._output.read_bytes(), self._errors.read_bytes())
            raise subprocess.TimeoutExpired(self._arguments, seconds, *said)
        return Done(self._arguments, self._process.exitcode, self._output.read_text(), self._errors.read_text())


def run_forked(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    with Started(arguments, environment) as command:
        return command.ended(SECONDS)


def _command(arguments: list[str], environment: dict[str, str], here: Path, output: Path, errors: Path) -> None:
    os.chdir(here)
    for descriptor, path in ((1, output), (2, errors)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dx-dagster", *arguments]
    from dx_dagster.cli import main  # noqa: PLC0415 - in the forked process alone

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - multiprocessing leaves them out
