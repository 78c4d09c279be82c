"""Logs of the services: a pipe for each, and a process that writes its content to a file."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from dx_dagster.cli import log_writer

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PATIENCE = 5.0
_SECONDS_TO_CLOSE = 0.5
_SECONDS_BETWEEN_WRITERS = 1.0


class ServiceLog:
    """A service's log, from the first start of the service on; close it when the service has ended.

    Both ends of the pipe stay open here: the service can write, and waits if need be, while a writer that was killed is
    replaced.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        found = [file.stat() for file in log_writer.files_of(path) if file.exists()]
        self._before = {one.st_ino: one.st_size for one in found}
        self._output, self.input = os.pipe()
        self._start_writer()

    def _start_writer(self) -> None:
        # Another pair each time: what one writer was asked is no answer of the next.
        self._requests, theirs = socket.socketpair()
        self._requests.settimeout(_PATIENCE)
        self._started_at = time.monotonic()
        self._writer = subprocess.Popen(  # noqa: S603 - our own module
            # By its path, and without what it does not need: it is there at once, and small.
            [sys.executable, "-I", "-S", log_writer.__file__, self.path, str(self._limit), str(theirs.fileno())],
            stdin=self._output,
            pass_fds=(theirs.fileno(),),
            env={},  # it needs no secrets
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it: the services still have something to say
        )
        theirs.close()

    def keep_written(self) -> None:
        """Replaces a writer that was killed."""
        if self._writer.poll() is not None and time.monotonic() - self._started_at > _SECONDS_BETWEEN_WRITERS:
            self._requests.close()
            self._start_writer()

    def flush(self) -> None:
        """Returns when the content of the pipe is in the file, and no repetition is left to count."""
        with suppress(OSError):  # a writer that was just killed does not answer
            self._requests.send(b".")
            self._requests.recv(1)

    def text(self) -> str:
        """The service's output since its first start, except for rotated files that were deleted."""
        self.flush()
        content = b""
        for file in log_writer.files_of(self.path):
            with suppress(FileNotFoundError), file.open("rb") as opened:
                found = os.fstat(opened.fileno())
                before = self._before.get(found.st_ino, 0)
                # A smaller one is a new file, under the number of one that was removed.
                opened.seek(before if before <= found.st_size else 0)
                content += opened.read()
        return _COLOURS.sub("", content.decode(errors="replace"))

    def close(self) -> None:
        """Waits for the last lines, unless a process outside the service's session holds the pipe open."""
        os.close(self.input)
        os.close(self._output)
        self._requests.close()
        try:
            self._writer.wait(_SECONDS_TO_CLOSE)
        except subprocess.TimeoutExpired:
            self._writer.returncode = 0  # it ends with that process: no warning about a child left running
