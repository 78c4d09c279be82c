"""One stream of all services' logs, on the terminal of `up`: each line with the name of its service."""

import os
import re
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dx_dagster.cli.json_lines import with_service

_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")
_READ_BYTES = 65_536
_MOST_ROUNDS = 16  # a service that writes without a pause must not keep the supervisor from its other work
_ATOMIC_BYTES = 4096  # a pipe that is ready takes as much without blocking


class LogStream:
    """Shows what is added to the files of logs.

    The files are its buffer. Where nobody reads the output, it waits, and neither the services nor their supervisor do.
    """

    def __init__(self, *, as_json: bool = False, output: int | None = None) -> None:
        self._output = sys.stdout.fileno() if output is None else output
        self._as_json = as_json
        self._followed: dict[str, _Followed] = {}
        self._pending = b""
        self._width = 0
        self._is_plain = not os.isatty(self._output)

    def follow(self, name: str, path: Path) -> None:
        """Shows the file's lines from now on."""
        self._followed[name] = _Followed(path)
        self._width = max(self._width, len(name))

    def show(self) -> None:
        """Writes the new lines, as far as the output takes them at once."""
        for _ in range(_MOST_ROUNDS):
            if not self._write_pending():
                return
            self._pending = b"".join(self._new_lines())
            if not self._pending:
                return

    def close(self) -> None:
        """Shows the last lines."""
        self.show()
        for file in self._followed.values():
            file.close()

    def _new_lines(self) -> list[bytes]:
        return [self._named(name, line) for name, file in self._followed.items() for line in file.new_lines()]

    def _named(self, name: str, line: bytes) -> bytes:
        if self._as_json:
            return with_service(name, _COLOURS.sub(b"", line))
        shown = _COLOURS.sub(b"", line) if self._is_plain else line
        return f"{name:<{self._width}} | ".encode() + shown

    def _write_pending(self) -> bool:
        """Whether all of it is written."""
        try:
            while self._pending:
                if not select.select([], [self._output], [], 0)[1]:
                    return False
                written = os.write(self._output, self._pending[:_ATOMIC_BYTES])
                self._pending = self._pending[written:]
        except BlockingIOError:
            return False
        except OSError:  # the terminal is gone: the files have it all
            self._pending = b""
        return True


class _Followed:
    """A file that grows, and is renamed now and then while another takes its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        with suppress(FileNotFoundError):
            self._file = path.open("rb", buffering=0)
            self._file.seek(0, os.SEEK_END)

    def new_lines(self) -> Iterable[bytes]:
        """Lines of at most some 64 KiB, which end with a line break."""
        content = self._read()
        *lines, self._rest = (self._rest + content).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(self._rest) > _READ_BYTES:
            yield self._rest + b"\n"
            self._rest = b""

    def _read(self) -> bytes:
        for file in self._files():
            with suppress(OSError):
                if content := file.read(_READ_BYTES):
                    return content
        return b""

    def _files(self) -> Iterator[BinaryIO]:
        """The open file, then the one that has taken its place."""
        if self._file is not None:
            yield self._file
        with suppress(OSError):
            if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                successor = self._path.open("rb", buffering=0)
                if self._file is not None:
                    self._file.close()
                self._file = successor
                yield successor

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
