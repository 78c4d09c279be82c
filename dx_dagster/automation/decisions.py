"""Which workspaces get a run: pure functions of the stored state."""

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from dx_dagster.warehouse.connections.due import Paced
from dx_dagster.warehouse.webhooks.inbox import Waiting
from dx_dagster.webhooks.inboxes import LONGEST_RUN_SECONDS

_TICKS_AN_HOUR = 12
_TRIES_OF_FAILING = 4
_CLOCKS = timedelta(minutes=5)  # a tick may be evaluated late, and clocks differ
# A refresh that has room takes them within a second. A run takes some five seconds to begin.
_LONG_WAIT_SECONDS = 15.0
_TO_TAKE_OVER_SECONDS = 30.0
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def needs_refresh(waiting: Iterable[Waiting], syncing: Collection[str], ages: Collection[float], most: int) -> bool:
    """Whether one more refresh is to start: one for all workspaces, and more only where deliveries wait for long.

    `syncing`: workspaces that a refresh leaves to a sync. `ages`: of queued and running refreshes, in seconds. There
    may be `most` of them, and one more to take over from one that is about to end. After a failure the inbox decides
    when deliveries are due again.
    """
    seconds = [one.seconds for one in waiting if one.due and not one.is_locked and one.workspace.lower() not in syncing]
    if not seconds:
        return False
    if all(age >= LONGEST_RUN_SECONDS - _TO_TAKE_OVER_SECONDS for age in ages):
        return len(ages) <= most
    return len(ages) < most and max(seconds) >= _LONG_WAIT_SECONDS


def due_for_sync(
    known: Sequence[Paced],
    busy: Collection[str],
    now: datetime,
    every: timedelta,
    pace: int | None,
    *,
    queued: int = 0,
) -> list[str]:
    """The workspaces that were not synced for `every`: never synced ones first, then by age.

    A failing workspace is tried four times as often: its deliveries wait until a sync succeeds.

    At most `pace` of them, so that the runs spread over the hour; by default as many as let each have its turn. Those
    `queued` since the last ticks count: a queue that grows would only hold back what webhooks bring.
    """
    most = max(0, (pace or math.ceil(len(known) / _TICKS_AN_HOUR)) - queued)
    stale = [
        one
        for one in known
        if one.workspace.lower() not in busy
        and now - _tried(one, now) >= (every if one.failed_at is None else every / _TRIES_OF_FAILING)
    ]
    stale.sort(key=lambda one: (_tried(one, now), one.workspace))
    return [one.workspace for one in stale[:most]]


def _tried(one: Paced, now: datetime) -> datetime:
    """The time of its last sync or failure. A time in the future, of a wrong clock, is ignored."""
    moments = [at for at in (one.last_synced_at, one.failed_at) if at is not None and at <= now + _CLOCKS]
    return max(moments, default=_LONG_AGO)
