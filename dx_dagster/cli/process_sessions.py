"""The sessions of the services that a supervisor has started, and how they end, also after it was killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from secrets import token_hex

import psutil

SUPERVISOR = "DX_SUPERVISOR"
"""The variable that marks what a supervisor has started."""
_POLL_SECONDS = 0.2
# Together with the last output and the embedded database, everything ends within ten seconds.
_SECONDS_FOR_SERVICES = 4.0
_SECONDS_FOR_THEIR_CHILDREN = 1.0  # code servers end with what has started them; runs do not
_SECONDS_AFTER_SIGTERM = 4.0
_SECONDS_AFTER_SIGKILL = 5.0  # it mostly takes an instant


class Sessions:
    """The sessions of the services of one supervisor; a service may have code servers and runs.

    A variable in their environment marks them. A list of ids would lack a service whose supervisor was interrupted or
    killed while it started it, and have ids of sessions that ended long ago and are other people's by now.

    Of this process's own children, those that ended must be waited for elsewhere: here they only count as ended.
    """

    def __init__(self, supervisor: str) -> None:
        self._supervisor = supervisor
        self._known: frozenset[int] = frozenset()

    @property
    def mark(self) -> Mapping[str, str]:
        """The variable that each service needs in its environment."""
        return {SUPERVISOR: self._supervisor}

    def end(self, known: Iterable[int] = ()) -> None:
        """Interrupts the services, and ends what lives after some seconds the harder way. Nothing lives after it.

        `known`: ids of services that this process has not waited for. Linux hides the environment of programs with
        capabilities of their own.
        """
        self._known = frozenset(known)
        _signal(self._services_alive(), signal.SIGINT)
        _ended_within(_SECONDS_FOR_SERVICES, self._services_alive)
        if _ended_within(_SECONDS_FOR_THEIR_CHILDREN, self._alive):
            return
        _signal(self._alive(), signal.SIGTERM)
        if not _ended_within(_SECONDS_AFTER_SIGTERM, self._alive):
            _ended_within(_SECONDS_AFTER_SIGKILL, self._killed)

    def _killed(self) -> list[psutil.Process]:
        """Kills all that live, also those that others have started meanwhile; returns who lives still."""
        _signal(self._alive(), signal.SIGKILL)
        return self._alive()

    def _services_alive(self) -> list[psutil.Process]:
        return [process for process in self._alive() if process.pid == _session(process)]

    def _alive(self) -> list[psutil.Process]:
        """All processes of the sessions, also those whose environment is their own."""
        living = [(process, session) for process in psutil.process_iter() if (session := _session(process))]
        ours = {session for process, session in living if session in self._known or self._has_mark(process)}
        return [process for process, session in living if session in ours]

    def _has_mark(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(SUPERVISOR) == self._supervisor
        except (psutil.Error, OSError):  # it has ended, or is another user's
            return False


class SessionsEndedInAnyCase(Sessions):
    """Ends the sessions also when this process is killed: a small process waits for that.

    A signal that Linux would send to the services then is sent once, and Python loses it where it arrives in a
    callback; nor would it end what a service has started.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(token_hex(8))
        self._environment = environment
        self._waiting = self._wait()

    def keep(self) -> None:
        """Starts the small process again where something has ended it."""
        if self._waiting.poll() is not None:
            self._waiting.communicate()
            self._waiting = self._wait()

    def _wait(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__, self._supervisor],
            env=self._environment,
            stdin=subprocess.PIPE,  # no service inherits this end of it
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # whoever reads the output of a killed supervisor comes to its end at once
            start_new_session=True,
        )

    def end(self, known: Iterable[int] = ()) -> None:
        super().end(known)
        self._waiting.communicate()


def _ended_within(seconds: float, alive: Callable[[], Collection[object]]) -> bool:
    deadline = time.monotonic() + seconds
    while found := alive():
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return not found


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.Error):  # one that ended, or that another user runs, must not keep the others alive
            process.send_signal(number)


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.Error, OSError):
        return None


if __name__ == "__main__":
    # The input ends with the supervisor, however that ends; then nothing lives if it ended as it should.
    sys.stdin.read()
    Sessions(sys.argv[1]).end()
