"""Runs one command and writes what it cost into a file: `launcher.py FILE COMMAND …`.

A process of its own with nothing in it: Linux counts the memory of whoever starts a program towards that program's
peak, and the benchmark itself holds a whole made-up workspace.
"""

import json
import resource
import subprocess
import sys
import time


def main() -> int:
    began = time.monotonic()
    status = subprocess.call(sys.argv[2:])
    wall = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    kilobytes = used.ru_maxrss / 1024 if sys.platform == "darwin" else used.ru_maxrss
    with open(sys.argv[1], "w") as report:  # noqa: PTH123 - pathlib would be the biggest thing in this process
        json.dump({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": kilobytes / 1024}, report)
    return status


if __name__ == "__main__":
    sys.exit(main())
