"""The commands, each in a process of its own: started as a person does, or forked from one that has loaded Dagster.

A forked command has its own environment, arguments, output and exit status, and comes without the two seconds that most
of its imports take (`dx_dagster_tests.preloaded`). What is about the process itself (how it starts, who sees its
arguments, which imports it needs) is tested with `run_process`.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

Done = subprocess.CompletedProcess[str]
SECONDS = 280

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["dx_dagster_tests.preloaded"])


def run_new(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    command = [sys.executable, "-m", "dx_dagster.cli", *arguments]
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=SECONDS, check=False)


def run_forked(arguments: Sequence[str], environment: Mapping[str, str]) -> Done:
    with tempfile.TemporaryDirectory(prefix="dx-command-") as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        process = _FORKING.Process(
            target=_command, args=(list(arguments), dict(environment), Path.cwd(), output, errors)
        )
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), SECONDS, output.read_bytes(), errors.read_bytes())
        return Done(list(arguments), process.exitcode, output.read_text(), errors.read_text())


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
