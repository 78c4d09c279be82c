"""Writes the log of one service: rotates it, and counts repeated entries. Uses the standard library only.

It is a process of its own at the far end of a pipe. The service, and everything that it starts, writes into the pipe as
into a file. The process ends with the last of the writers, so it outlives a supervisor that is killed.
"""

import io
import os
import re
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

OLDER_FILES = 2
_READ_BYTES = 65_536
_MOST_READS = 16  # a pipe holds 64 KiB, and may be set to hold a megabyte
_LONGEST_ENTRY = 65_536
_LONGEST_QUOTE = 500
_QUIET_SECONDS = 0.2  # a longer pause ends an entry
_COUNTED_SECONDS = 60.0
_MOST_COUNTED = 200
# Each byte is one character: the output of a service need not be text.
_BYTES = "latin-1"
_COLOUR = r"(?:\x1b\[[\d;]*m)*"
_TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"
# An entry begins with a time, or with a level as in uvicorn's log. A traceback may have neither.
_BEGINNING = re.compile(rf"{_COLOUR}(?:\{{|{_TIME}|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b)")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)|\s*[+|] Exception Group Traceback")
# Entries that differ only in the time or the client's port are repetitions. Those of JSON have the time in a field.
_VARYING = re.compile(rf'(?:^{_COLOUR}|"timestamp": ?"){_TIME}[\d.,]*(?: ?[+-]\d\d:?\d\d|Z)?|:\d+(?= - \\?")')


class LogFile(RotatingFileHandler):
    """A file and its older ones, which together take at most `limit` bytes.

    One that cannot be written to is tried again with every entry. That is told once, on standard error.
    """

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(
            path, maxBytes=limit // (1 + OLDER_FILES), backupCount=OLDER_FILES, encoding=_BYTES, delay=True
        )
        self._limit = limit
        self._lost = 0

    def write(self, entry: str) -> None:
        lost = self._lost
        self.emit(makeLogRecord({"msg": entry}))
        if lost and lost == self._lost:
            self._lost = 0
            self.emit(makeLogRecord({"msg": f"(entries lost while this file could not be written: {lost})"}))

    def doRollover(self) -> None:  # noqa: N802 - the name of the base class
        super().doRollover()
        # An earlier release or a larger limit may have left larger files.
        files = [file for file in files_of(Path(self.baseFilename)) if file.exists()]
        while sum(file.stat().st_size for file in files) > self._limit:
            files.pop(0).unlink()

    def handleError(self, record: LogRecord) -> None:  # noqa: ARG002, N802 - the name of the base class
        self._lost += 1
        if self._lost == 1:
            with suppress(OSError, ValueError):
                print(
                    f"{self.baseFilename} cannot be written to: {sys.exc_info()[1]}. The service goes on without it.",
                    file=sys.stderr,
                    flush=True,
                )
        with suppress(OSError, ValueError):  # the next entry opens it again
            self.close()

    def _open(self) -> io.TextIOWrapper:
        """Opens the file without a buffer: on a full disk an entry is lost whole, not written in parts later."""
        raw = Path(self.baseFilename).open("ab", buffering=0)  # noqa: SIM115 - the stream closes it
        return io.TextIOWrapper(raw, encoding=_BYTES, newline="", write_through=True)


def files_of(path: Path) -> list[Path]:
    """The log's files, the oldest first."""
    return [*(path.with_name(f"{path.name}.{number}") for number in range(OLDER_FILES, 0, -1)), path]


@dataclass
class _Counted:
    since: float
    more: int = 0
    last: str = ""


class Counting:
    """Writes an entry, and counts its repetitions within a minute."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._counted: dict[int, _Counted] = {}  # in the order in which their minutes began

    def add(self, entry: str) -> None:
        if not entry.strip():
            self._write(entry)
            return
        key = hash(_VARYING.sub("", entry))
        if found := self._counted.get(key):
            found.more += 1
            line = entry.partition("\n")[0]
            found.last = line if line.startswith("{") else line[:_LONGEST_QUOTE]
            return
        if len(self._counted) == _MOST_COUNTED:
            self._say(self._counted.pop(next(iter(self._counted))))
        self._write(entry)
        self._counted[key] = _Counted(self._clock())

    def seconds_left(self) -> float | None:
        """Seconds until the first minute ends; None if nothing is counted."""
        first = next(iter(self._counted.values()), None)
        return None if first is None else max(0.0, first.since + _COUNTED_SECONDS - self._clock())

    def end_minutes(self) -> None:
        """Writes the count of repetitions of each minute that has ended."""
        while self.seconds_left() == 0:
            key = next(iter(self._counted))
            found = self._counted.pop(key)
            if found.more:
                self._say(found)
                self._counted[key] = _Counted(self._clock())

    def end(self) -> None:
        for found in self._counted.values():
            self._say(found)
        self._counted.clear()

    def _say(self, counted: _Counted) -> None:
        if counted.more:
            seconds = round(self._clock() - counted.since)
            times = "once" if counted.more == 1 else f"{counted.more} times"
            if counted.last.startswith("{") and counted.last.endswith("}"):
                more = f'"repeated": {counted.more}, "within_seconds": {seconds}'
                self._write(f"{counted.last[:-1]}, {more}}}")
            else:
                self._write(f"{counted.last} ({times} more within {seconds} s)")


class Entries:
    """Joins the lines of an entry: its first line, and following lines such as a traceback's."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self._add = add
        self._rest = ""
        self._entry: list[str] = []
        self._length = 0

    @property
    def are_waiting(self) -> bool:
        return bool(self._rest or self._entry)

    def feed(self, content: bytes) -> None:
        *lines, self._rest = (self._rest + content.decode(_BYTES)).split("\n")
        for line in lines:
            self._line(line)
        while len(self._rest) > _LONGEST_ENTRY:
            self._line(self._rest[:_LONGEST_ENTRY])
            self._rest = self._rest[_LONGEST_ENTRY:]

    def flush(self) -> None:
        """Ends the entry."""
        if self._rest:
            rest, self._rest = self._rest, ""
            self._line(rest)
        self._end()

    def _line(self, line: str) -> None:
        begins = _BEGINNING.match(line) or (not self._entry and _TRACEBACK.match(line))
        if begins or self._length + len(line) > _LONGEST_ENTRY:
            self._end()
        if not begins and not self._entry:
            self._add(line)
            return
        self._entry.append(line)
        self._length += len(line) + 1

    def _end(self) -> None:
        if self._entry:
            entry, self._entry, self._length = "\n".join(self._entry), [], 0
            self._add(entry)


def write_log(path: Path, limit: int, output: int, requests: socket.socket) -> None:
    """Writes the content of the pipe `output` until its end.

    For each byte of `requests` it writes at once what it holds back, starts counting anew, and answers with a byte.
    """
    counting = Counting(LogFile(path, limit).write)
    entries = Entries(counting.add)
    with selectors.DefaultSelector() as waiting:
        waiting.register(output, selectors.EVENT_READ)
        waiting.register(requests, selectors.EVENT_READ)
        is_open = True
        while is_open:
            ready = {key.fileobj for key, _ in waiting.select(_seconds(entries, counting))}
            if output in ready:
                is_open = _read(output, entries)
            elif not ready:
                entries.flush()
            if requests in ready and not _answer(requests, output, entries, counting):
                waiting.unregister(requests)
            counting.end_minutes()
    entries.flush()
    counting.end()


def _seconds(entries: Entries, counting: Counting) -> float | None:
    return _QUIET_SECONDS if entries.are_waiting else counting.seconds_left()


def _read(output: int, entries: Entries) -> bool:
    content = os.read(output, _READ_BYTES)
    entries.feed(content)
    return bool(content)


def _answer(requests: socket.socket, output: int, entries: Entries, counting: Counting) -> bool:
    """Answers requests of the supervisor; returns whether to go on. The pipe's content is written first."""
    try:
        if not requests.recv(1):
            return False
        with selectors.DefaultSelector() as now:
            now.register(output, selectors.EVENT_READ)
            read = 0
            while read < _MOST_READS and now.select(0) and _read(output, entries):
                read += 1
        entries.flush()
        counting.end()
        requests.send(b".")
    except OSError:
        return False  # the supervisor is gone
    return True


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the service's last output must still be written
    write_log(Path(sys.argv[1]), int(sys.argv[2]), sys.stdin.fileno(), socket.socket(fileno=int(sys.argv[3])))
