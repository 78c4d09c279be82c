"""The contestants: each a command with an environment and tables for its rows."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.fernet import Fernet

from benchmarks import surroundings

ROOT = Path(__file__).parent.parent
IN_FLIGHT = 8
"""The limit of requests in flight, the same for all."""

_FOREIGN = ROOT / ".venv-bench" / "bin" / "python"

# What is compared, and where dlt puts it.
TABLES = {
    "bitbucket_repositories": "repositories",
    "bitbucket_users": "members",
    "bitbucket_pulls": "pullrequests",
    "bitbucket_pull_participants": "pullrequests__participants",
    "bitbucket_pull_activities": "activity",
    "bitbucket_pull_comments": "comments",
    "bitbucket_pull_commits": "pull_commits",
    "bitbucket_repository_default_branch_commits": "branch_commits",
    "bitbucket_pipelines": "pipelines",
}


class CannotRunError(Exception):
    """A contestant cannot run here; the message says how to mend that."""


@dataclass(frozen=True)
class Contestant:
    """`tables` are those of its rows. `prepare` runs commands before the measurement, such as `connect`."""

    name: str
    command: tuple[str, ...]
    tables: Mapping[str, str] = field(default_factory=lambda: {name: name for name in TABLES})
    prepare: tuple[str, ...] | None = None


_PYTHON = (sys.executable, "-m")
OURS = Contestant(
    "dx-dagster",
    (*_PYTHON, "dx_dagster.cli", "sync", "acme", "--json"),
    prepare=(*_PYTHON, "dx_dagster.cli", "connect", "acme"),
)
ENDPOINTS = Contestant("endpoint by endpoint", (*_PYTHON, "benchmarks.endpoint_by_endpoint", "acme", str(IN_FLIGHT)))
DLT = Contestant(
    "dlt rest_api",
    (str(_FOREIGN), "-m", "benchmarks.dlt_import", "acme", str(IN_FLIGHT)),
    {ours: f"bench.{theirs}" for ours, theirs in TABLES.items()},
)
CONTESTANTS = {"ours": OURS, "endpoints": ENDPOINTS, "dlt": DLT}


def require(contestant: Contestant) -> None:
    """Raises CannotRunError when its program is not there."""
    if contestant is DLT and not _FOREIGN.exists():
        raise CannotRunError(
            "dlt has an environment of its own, .venv-bench, which is not there. `make bench` makes it; "
            "`--only ours --only endpoints` goes without."
        )


@contextmanager
def environment(api_url: str, database_url: str) -> Iterator[dict[str, str]]:
    """The environment of each process: sandbox, token, database and home, without the caller's own settings."""
    home = Path(tempfile.mkdtemp(prefix="dx-dagster-bench-home-"))
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "TMPDIR") if name in os.environ}
    try:
        yield {
            **kept,
            "HOME": str(home),
            "DX_HOME": str(home / "dx"),
            "DX_DATABASE_URL": database_url,
            "DX_MAX_IN_FLIGHT": str(IN_FLIGHT),
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "BITBUCKET_API_URL": api_url,
            "BITBUCKET_TOKEN": surroundings.TOKEN,
        }
    finally:
        shutil.rmtree(home)


def checked(command: tuple[str, ...], env: Mapping[str, str], wrapped: Callable[[list[str]], list[str]] = list) -> str:
    """The output of a command; CannotRunError with its last line where it fails."""
    done = subprocess.run(wrapped(list(command)), env=dict(env), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise CannotRunError(f"`{' '.join(command)}` ended with status {done.returncode}: {words}")
    return done.stdout
