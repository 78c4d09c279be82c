"""The environment of clients that were written for DX, made once for each lock file."""

import fcntl
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

_LOCK = Path(__file__).parent / "requirements.lock"
_ENVIRONMENT = Path(__file__).parents[2] / ".venv-dx-clients"
_INSTALL_SECONDS = 120


@pytest.fixture(scope="session")
def clients() -> Path:
    """The folder with the clients' programs. Skips the test where they cannot be installed, and says why."""
    _ENVIRONMENT.mkdir(exist_ok=True)
    home = _ENVIRONMENT / sha256(_LOCK.read_bytes()).hexdigest()[:16]
    with (_ENVIRONMENT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one run
        if not (home / "installed").exists():
            try:
                _install(home)
            except (subprocess.SubprocessError, OSError) as error:
                said = getattr(error, "stderr", None) or str(error)
                pytest.skip(f"DX's clients cannot be installed: {said.strip().splitlines()[-1]}")
    return home / "bin"


def _install(home: Path) -> None:
    """Installs the lock file. pip does it where uv cannot: an index that only pip's settings name is unknown to uv."""
    uv, python = str(Path(sys.executable).parent / "uv"), str(home / "bin/python")
    wanted = ("--no-deps", "--require-hashes", "-r", str(_LOCK))
    try:
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home))
        _run(uv, "pip", "install", "--quiet", "--python", python, *wanted)
    except (subprocess.SubprocessError, OSError):
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
    (home / "installed").touch()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
