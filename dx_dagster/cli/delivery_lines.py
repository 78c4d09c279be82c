"""The lines in which the demo shows the changes that have reached the tables."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

import psycopg

from dx_dagster.clock import HOST
from dx_dagster.warehouse.webhooks.inbox import SettledDelivery, settled_after
from dx_dagster.webhooks.wording import in_words

_SECONDS_BETWEEN_LOOKS = 1.0
_MOST_LINES = 4  # of one look


class Arrivals:
    """Prints a line for each delivery that was applied since this was made, a few at a time."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._last = HOST.now()
        self._looked = time.monotonic()

    def show(self) -> None:
        """Prints what is new, at most once a second."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        try:
            settled = settled_after(self._url, self._last)
        except psycopg.Error:  # the services report it; the next look may succeed
            return
        if settled:
            self._last = settled[-1].settled_at
        told = list(_lines(settled))
        for line in told[:_MOST_LINES]:
            print(line, flush=True)
        if len(told) > _MOST_LINES:
            print(f"{_time(self._last)}  and {len(told) - _MOST_LINES} more changes", flush=True)


def _lines(settled: list[SettledDelivery]) -> Iterator[str]:
    """A line for each delivery, but for pushes that a pull request's own delivery tells too. Equal lines are one."""
    with_pulls = {one.repository_source_id for one in settled if one.event_key.startswith("pullrequest:")}
    told = [one for one in settled if one.event_key != "repo:push" or one.repository_source_id not in with_pulls]
    for line, _ in groupby(f"{_time(one.settled_at)}  {_sentence(one)}" for one in told):
        yield line


def _sentence(delivery: SettledDelivery) -> str:
    said = in_words(delivery.event_key, json.loads(delivery.body))
    return f"{said}: could not be applied. {delivery.error}" if delivery.error else said


def _time(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"
