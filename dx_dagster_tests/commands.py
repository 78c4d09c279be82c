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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

Done = subprocess.CompletedProcess[str]
SECONDS = 280
SEEN = "HOMES_THAT_ARE_SEEN"
"""A variable: commands without a home look at all processes of the user, and see those of homes in this folder."""

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
    if SEEN in environment:
        _see_only(environment[SEEN])
    sys.argv = ["dx-dagster", *arguments]
    from dx_dagster.cli import main  # noqa: PLC0415 - in the forked process alone

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - multiprocessing leaves them out


def _see_only(folder: str) -> None:
    """Hides the installations of other tests, and of whoever else works on this machine."""
    every = psutil.process_iter

    def seen(*arguments: Any) -> Iterator[psutil.Process]:
        for process in every(*arguments):
            with suppress(psutil.Error, OSError):
                if process.environ().get("DX_HOME", "").startswith(folder):
                    yield process

    psutil.process_iter = seen  # type: ignore[assignment]
