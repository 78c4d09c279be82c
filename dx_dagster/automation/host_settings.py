"""What imports want of the `dagster.yaml` of the project that a component stands in: a warning where it lacks it.

Nothing is wrong without it: locks of the database keep two runs off one workspace. But the second one has a process
and waits, where it would wait in the queue. Our own dagster.yaml has all of it, and `dx-dagster doctor` looks at that.
"""

import logging

import dagster as dg

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


def missing_lines(placement: Placement, instance: dg.DagsterInstance) -> str:
    """The lines that the instance's dagster.yaml lacks."""
    queue = instance.get_concurrency_config().run_queue_config
    limited = {limit.get("key") for limit in (queue.tag_concurrency_limits or ())} if queue else set()
    wanted = {
        placement.tag(WORKSPACE_TAG): _ONE_RUN_A_WORKSPACE,
        placement.tag(BACKGROUND_TAG): _ROOM_FOR_DELIVERIES,
    }
    limits = [lines.format(key=key) for key, lines in wanted.items() if key not in limited]
    return "\n".join(
        [
            *(["concurrency:", "  runs:", "    tag_concurrency_limits:", *limits] if limits else ()),
            *(() if instance.run_monitoring_enabled else (_MONITORING,)),
        ]
    )


def warn_of_settings(placement: Placement, instance: dg.DagsterInstance) -> None:
    """Warns once in a process, with the first tick of a schedule or sensor."""
    if placement.component is None or placement.component in _told:
        return
    _told.add(placement.component)
    if lines := missing_lines(placement, instance):
        _LOG.warning(
            "dagster.yaml lacks lines that imports of the component %s want. Nothing is wrong without them, only "
            "slower. Add:\n%s",
            placement.component,
            lines,
        )
