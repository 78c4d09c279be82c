"""The sessions of the services that a supervisor has started, and how they end, also after it was killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import psutil

_POLL_SECONDS = 0.2
# Together with the last output and the embedded database, everything ends within ten seconds.
_SECONDS_FOR_SERVICES = 4.0
_SECONDS_FOR_THEIR_CHILDREN = 1.0  # code servers end with what has started them; runs do not
_SECONDS_AFTER_SIGTERM = 4.0
_SECONDS_AFTER_SIGKILL = 5.0  # it mostly takes an instant


class Sessions:
    """Sessions of processes, each named by the id of its leader: a service, which may have code servers and runs.

    Of this process's own children, those that ended must be waited for elsewhere: here they only count as ended.
    """

    def __init__(self, leaders: Iterable[int] = ()) -> None:
        # A dead leader's session is remembered too: it may have left code servers and runs at work.
        self._leaders = set(leaders)

    def add(self, leader: int) -> None:
        self._leaders.add(leader)

    def end(self) -> None:
        """Interrupts the services, and ends what lives after some seconds the harder way. Nothing lives after it."""
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
        return [process for process in self._alive() if process.pid in self._leaders]

    def _alive(self) -> list[psutil.Process]:
        """All processes of the sessions. A session's id is not reused while a process of it lives."""
        return [process for process in psutil.process_iter() if _session(process) in self._leaders]


class SessionsEndedInAnyCase(Sessions):
    """Ends the sessions also when this process is killed: a small process waits for that.

    A signal that Linux would send to the services then is sent once, and Python loses it where it arrives in a
    callback; nor would it end what a service has started.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        leaders, self._leaders_to = os.pipe()  # no service inherits an end of it
        self._waiting = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__],
            env=environment,
            stdin=leaders,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # whoever reads the output of a killed supervisor comes to its end at once
            start_new_session=True,
        )
        os.close(leaders)

    def add(self, leader: int) -> None:
        super().add(leader)
        with suppress(BrokenPipeError):  # the small process was killed; the services must run all the same
            os.write(self._leaders_to, f"{leader}\n".encode())

    def end(self) -> None:
        super().end()
        os.close(self._leaders_to)
        self._waiting.wait()


def _ended_within(seconds: float, alive: Callable[[], Collection[object]]) -> bool:
    deadline = time.monotonic() + seconds
    while found := alive():
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return not found


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _session(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.Error, OSError):
        return None


if __name__ == "__main__":
    # The input ends with the process that writes it, however that ends; then nothing lives if it ended as it should.
    Sessions(int(line) for line in sys.stdin).end()
