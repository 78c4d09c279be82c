"""Dagster's configuration of an installation: `dagster.yaml` with what the settings change in it."""

import re
from importlib.util import find_spec
from pathlib import Path

from dx_dagster.cli.errors import CommandError
from dx_dagster.settings import Settings

CELERY = """
# Runs are tasks that `dx-dagster worker` takes from the broker.
run_launcher:
  module: dx_dagster.automation.celery_launcher
  class: WorkerRunLauncher
  config:
    broker:
      env: DX_CELERY_BROKER
"""


def text(settings: Settings, packaged: Path) -> str:
    """The file for these settings; `packaged` is the one for their defaults.

    Raises:
        CommandError: it needs Celery, which is not installed.
    """
    if settings.celery_broker is not None:
        require_celery()
    most = settings.concurrent_runs
    # Of five runs, three may be scheduled ones, and two reconciles. In one pass: what is put in may look like either.
    limits = {"3": most - 2, "2": max(1, most // 2)}
    changed = packaged.read_text().replace("max_concurrent_runs: 5", f"max_concurrent_runs: {most}")
    changed = re.sub(r"\blimit: ([23])$", lambda found: f"limit: {limits[found[1]]}", changed, flags=re.MULTILINE)
    return changed if settings.celery_broker is None else changed + CELERY


def require_celery() -> None:
    """Raises CommandError where the extra `celery` is not installed."""
    if find_spec("dagster_celery") is None:
        raise CommandError(
            "DX_CELERY_BROKER is set, and Celery is not installed. Install it with: pip install 'dx-dagster[celery]'"
        )
