"""What imports want of the `dagster.yaml` of the project that a component stands in: a warning where it lacks it.

Nothing is wrong without it: locks of the database keep two runs off one workspace. But the second one has a process
and waits, where it would wait in the queue. Our own dagster.yaml has all of it, and `dx-dagster doctor` looks at that.
"""

import logging
import os
from contextlib import suppress
from typing import Any

import dagster as dg
from dagster._core.instance.config import ConcurrencyConfig
from dagster._core.instance.ref import InstanceRef
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator

from dx_dagster.assets.placement import Placement
from dx_dagster.automation.under_way import BACKGROUND_TAG, WORKSPACE_TAG

_LOG = logging.getLogger(__name__)
_told: set[str] = set()

_ONE_RUN_A_WORKSPACE = """\
      # A second run on a workspace waits in the queue, and not in a process of its own.
      - key: {key}
        value:
          applyLimitPerUniqueValue: true
        limit: 1"""
_ROOM_FOR_DELIVERIES = """\
      # Scheduled syncs leave room in the queue to runs that apply webhook deliveries.
      - key: {key}
        value: "true"
        limit: 3"""
_MONITORING = """\
run_monitoring:
  # Runs that were killed before they began are noticed.
  enabled: true"""


def missing_lines(placement: Placement, concurrency: ConcurrencyConfig, *, monitoring: bool) -> str:
    """The lines that an instance's dagster.yaml lacks. `monitoring`: whether it monitors runs."""
    queue = concurrency.run_queue_config
    limited = {limit.get("key") for limit in (queue.tag_concurrency_limits or ())} if queue else set()
    wanted = {
        placement.tag(WORKSPACE_TAG): _ONE_RUN_A_WORKSPACE,
        placement.tag(BACKGROUND_TAG): _ROOM_FOR_DELIVERIES,
    }
    limits = [lines.format(key=key) for key, lines in wanted.items() if key not in limited]
    return "\n".join(
        [
            *(["concurrency:", "  runs:", "    tag_concurrency_limits:", *limits] if limits else ()),
            *(() if monitoring else (_MONITORING,)),
        ]
    )


def warn_of_settings(placement: Placement, instance: dg.DagsterInstance) -> None:
    """Warns with the first tick of a schedule or sensor."""
    _warn(placement, instance.get_concurrency_config(), monitoring=instance.run_monitoring_enabled)


def warn_at_load(placement: Placement) -> None:
    """Warns where DAGSTER_HOME names the instance: schedules and sensors may be off, and then nothing ticks.

    It reads dagster.yaml alone, and says nothing of one that it cannot read: loading must neither wait nor fail.
    """
    if home := os.environ.get("DAGSTER_HOME"):
        with suppress(Exception):
            ref = InstanceRef.from_dir(home)
            settings: Any = ref.settings
            queue = ref.run_coordinator
            limits = queue.get_run_queue_config() if isinstance(queue, QueuedRunCoordinator) else None
            concurrency = ConcurrencyConfig.from_concurrency_settings(settings.get("concurrency", {}), limits)
            _warn(placement, concurrency, monitoring=settings.get("run_monitoring", {}).get("enabled", False))


def _warn(placement: Placement, concurrency: ConcurrencyConfig, *, monitoring: bool) -> None:
    """Warns once in a process."""
    if placement.component is None or placement.component in _told:
        return
    _told.add(placement.component)
    if lines := missing_lines(placement, concurrency, monitoring=monitoring):
        _LOG.warning(
            "dagster.yaml lacks lines that imports of the component %s want. Nothing is wrong without them, only "
            "slower. Add:\n%s",
            placement.component,
            lines,
        )
