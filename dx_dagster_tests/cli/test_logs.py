"""Logs of services end: they are rotated while written, repetitions are counted, and the disk may be full."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from dx_dagster.cli import supervisor as supervising
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.log_stream import LogStream
from dx_dagster.cli.supervisor import Service, Supervisor
from dx_dagster.telemetry import json_logs
from dx_dagster_tests.conftest import RunCli, wait_until

SIZE = 1_000_000
# A service says what the lines of its standard output are; each pause is as long as one of a daemon.
TALKING = "import sys, time\nfor line in {lines}:\n    print(line, flush=True)\n    time.sleep({pause})\n"


def talking(lines: str, pause: float = 0.0, then: str = "time.sleep(600)") -> Service:
    return Service("talker", (sys.executable, "-c", TALKING.format(lines=lines, pause=pause) + then))


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path / "logs", SIZE, {}, tmp_path) as supervisor:
        yield supervisor


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "talker.log"


def test_a_log_is_rotated_while_it_is_written_and_keeps_within_its_size(supervisor, log):
    log.parent.mkdir()
    older = log.with_name("talker.log.1")
    older.write_text("of an earlier release\n" * 100_000)
    service = talking("(f'line {n} ' + 'x' * 1000 for n in range(5000))", then="print('the last line'); sys.exit(3)")
    supervisor.start(service)
    with pytest.raises(CommandError, match="the last line"):  # it was written before its supervisor tells of it
        supervisor.wait_for(service, lambda: False, 60)
    files = sorted(log.parent.iterdir())
    assert [file.name for file in files] == ["talker.log", "talker.log.1", "talker.log.2"]
    assert sum(file.stat().st_size for file in files) <= SIZE
    text = supervisor.output_of(service)
    kept = [int(line.split()[1]) for line in text.splitlines() if line.startswith("line")]
    assert kept == list(range(kept[0], 5000))
    assert len(kept) > 500


REPEATING = """[line for second in range(10, 30) for line in (
    f"2026-03-01 08:00:{second} +0000 - dagster.daemon.QueuedRunCoordinatorDaemon - INFO - Priority sorting",
    f"INFO:     127.0.0.1:{50000 + second} - \\"POST /webhooks/bitbucket HTTP/1.1\\" 401 Unauthorized",
    f"2026-03-01 08:00:{second} +0000 - dagster.daemon - ERROR - failed\\nTraceback (most recent call last):\\n"
    f"  File \\"one.py\\", line 1, in one\\nValueError: {second // 20}")]"""


def test_entries_that_repeat_are_counted_and_different_ones_stay_whole(supervisor, log):
    service = talking(REPEATING, 0.02, then="print('INFO: that was all', flush=True); time.sleep(600)")
    supervisor.start(service)
    assert wait_until(lambda: log.exists() and "that was all" in log.read_text(), 60)
    lines = supervisor.output_of(service).splitlines()
    assert sum("Priority sorting" in line for line in lines) == 2
    assert any(line.startswith("2026-03-01 08:00:29 +0000") and "(19 times more within" in line for line in lines)
    assert sum("401 Unauthorized" in line for line in lines) == 2
    for error in (0, 1):  # the same but for the last line
        first = lines.index(f"ValueError: {error}")
        assert lines[first - 1 : first + 1] == ['  File "one.py", line 1, in one', f"ValueError: {error}"]
        assert lines[first - 3].endswith("ERROR - failed")
    assert sum("(9 times more within" in line for line in lines) == 2


def test_a_log_is_bytes_and_a_long_line_is_cut(supervisor, log):
    numbers = "b''.join(b'%d,' % number for number in range(40_000))"
    write = f"sys.stdout.buffer.write(b'caf\\xe9 \\xf0\\x9f\\r\\n' + {numbers} + b' no end'); sys.stdout.flush()\n"
    supervisor.start(talking("()", then=write + "time.sleep(600)"))
    assert wait_until(lambda: log.exists() and b"no end" in log.read_bytes(), 60)
    first, *cut = log.read_bytes().split(b"\n")
    assert first == b"caf\xe9 \xf0\x9f\r"
    assert b"".join(cut) == b"".join(b"%d," % number for number in range(40_000)) + b" no end"


def test_a_service_goes_on_while_its_log_cannot_be_written(tmp_path, log, capfd):
    log.parent.mkdir()
    log.symlink_to("/dev/full")  # a disk without room
    with Supervisor(log.parent, SIZE, {}, tmp_path) as supervisor:
        counting = f"open({str(tmp_path / 'ticks')!r}, 'a').write('.') and f'tick {{n}}' for n in range(10**6)"
        supervisor.start(talking(f"({counting})", 0.05))
        assert wait_until(lambda: (tmp_path / "ticks").exists() and len((tmp_path / "ticks").read_bytes()) > 20, 60)
        log.unlink()
        assert wait_until(lambda: log.exists() and "tick" in log.read_text(), 60)
        assert "(entries lost while this file could not be written: " in log.read_text()
    told = [line for line in capfd.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(told) == 1
    assert "No space left on device" in told[0]


def test_a_killed_writer_is_replaced_and_nothing_behind_it_is_lost(supervisor, log):
    service = talking("(f'tick {n}' for n in range(10**6))", 0.02)
    supervisor.start(service)
    assert wait_until(lambda: log.exists() and "tick 9" in log.read_text(), 60)
    (writer,) = [one for one in psutil.Process().children() if str(log) in one.cmdline()]
    writer.kill()

    def is_written_again() -> bool:
        return len(log.read_text().splitlines()) > written + 50

    written = len(log.read_text().splitlines())
    supervisor.wait_for(service, is_written_again, 60)
    numbers = [int(line.split()[1]) for line in log.read_text().splitlines()]
    later = numbers[written:]
    assert later == list(range(later[0], later[0] + len(later)))
    assert later[0] - numbers[written - 1] < 20  # what the killed one had read, and no more


SUPERVISING = """
import sys
from pathlib import Path
from dx_dagster.cli.supervisor import Service, Supervisor
said = '''
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2); print('said by one that outlives it')"])
try:
    print("at work", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("last words", flush=True)
'''
deaf = "import signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
service = Service("talker", (sys.executable, "-c", said))
with Supervisor(Path(sys.argv[1]), 1_000_000, {}, Path("/")) as supervisor:
    supervisor.start(Service("deaf", (sys.executable, "-c", deaf, sys.argv[1])), service)
    supervisor.wait_for(service, lambda: "at work" in supervisor.output_of(service))
    print("up", flush=True)
    supervisor.watch()
"""


def test_what_outlives_a_killed_supervisor_gets_into_the_log_and_ends_after_seconds(log):
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, str(log.parent)], stdout=subprocess.PIPE, text=True
    ) as supervising:
        assert supervising.stdout is not None
        assert supervising.stdout.readline() == "up\n"
        supervising.kill()
    assert wait_until(lambda: "said by one that outlives it" in log.read_text(), 60)
    assert wait_until(lambda: "last words" in log.read_text(), 60)  # they may come later

    def is_at_work() -> bool:
        return any(str(log) in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))

    assert wait_until(lambda: not is_at_work()), "a writer, or a service that lost its interrupt, lives on"


@pytest.mark.parametrize("accident", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 9)"])
def test_a_service_whose_supervisor_is_interrupted_or_killed_while_it_starts_ends(accident, tmp_path):
    starting = f"""
import os, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
from dx_dagster.cli import supervisor
def start(*given, **named):
    subprocess.Popen(*given, **named)
    {accident}
supervisor.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)
with supervisor.Supervisor(Path(sys.argv[1]), 1_000_000, {{}}, Path("/")) as supervising:
    supervising.start(supervisor.Service("talker", (sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1])))
"""
    subprocess.run([sys.executable, "-c", starting, str(tmp_path / "logs")], stderr=subprocess.DEVNULL, check=False)

    def is_at_work() -> bool:
        return any(str(tmp_path) in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))

    assert wait_until(lambda: not is_at_work())


class _Database:
    def look(self, *, now: bool = False) -> bool:  # noqa: ARG002 - as the supervisor calls it
        return True


def test_a_service_that_keeps_dying_is_started_again_after_growing_pauses_and_ends_the_command(
    supervisor, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(supervising, "_FIRST_PAUSE", 0.1)
    started = f"import time; open({str(tmp_path / 'started')!r}, 'a').write(f'{{time.monotonic()}}\\n'); "
    supervisor.start(talking("['no port']", then=started + "sys.exit(3)"))
    with pytest.raises(CommandError, match=r"talker died 5 times, each time within 5 minutes[^\0]*no port"):
        supervisor.watch(_Database())
    times = [float(line) for line in (tmp_path / "started").read_text().splitlines()]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(pause >= 0.1 * 2**number for number, pause in enumerate(pauses))
    assert len(pauses) == 4
    assert capsys.readouterr().out.count("talker ended (exit status 3), restart in") == 4


def test_a_stream_that_nobody_reads_holds_up_no_service_and_loses_nothing(tmp_path, log):
    reader, output = os.pipe()
    os.set_blocking(reader, False)
    said = [f"line {number} " + "x" * 1000 for number in range(200)]
    service = talking(
        "(f'line {n} ' + 'x' * 1000 for n in range(200))", then="print('done', flush=True); time.sleep(600)"
    )
    shown: list[bytes] = []

    def is_all_shown() -> bool:
        with suppress(BlockingIOError):
            while True:
                shown.append(os.read(reader, 65_536))
        return shown[-1].endswith(b"done\n")

    with Supervisor(log.parent, SIZE, {}, tmp_path, LogStream(output=output)) as supervisor:
        supervisor.start(service)
        supervisor.wait_for(service, lambda: "done" in supervisor.output_of(service), 60)
        supervisor.wait_for(service, is_all_shown, 60)
    assert b"".join(shown).decode().splitlines() == [f"talker | {line}" for line in [*said, "done"]]


def test_a_line_of_a_run_over_many_workspaces_has_the_one_that_it_is_about():
    written = io.StringIO()
    log = logging.getLoggerClass()("dagster", logging.DEBUG)
    log.addHandler(json_logs.handler(written))
    run = {"run_id": "8f7c", "job_name": "refresh_workspaces", "job_tags": {}, "step_key": "apply_webhooks"}
    meta = {**run, "orig_message": "applied", "dagster_event": None}
    with json_logs.about(run_id="8f7c"), json_logs.about(workspace="acme"):
        log.info("refresh_workspaces - 8f7c - applied", extra={"dagster_meta": meta})
    log.info("a job - 9a1b", extra={"dagster_meta": {**meta, "run_id": "9a1b", "job_tags": {"dagster/partition": "b"}}})
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["run_id"], line["workspace"]) for line in lines] == [("8f7c", "acme"), ("9a1b", "b")]
    assert lines[0]["event"] == "applied"


def test_a_size_that_is_none_is_refused(run_cli: RunCli, bare_environment):
    for size in ("many", "10kB"):
        done = run_cli("status", env=bare_environment | {"DX_LOG_SIZE": size})
        assert done.returncode == 1
        assert done.stderr.startswith(f"DX_LOG_SIZE is '{size}'; it must be a size of at least 1MB, such as 20MB.")
