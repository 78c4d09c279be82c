"""Sends the deliveries of a living world to its hooks, as Bitbucket does: three attempts, without order."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dx_dagster.sandbox.deliveries import SandboxDelivery, Watcher
from dx_dagster.sandbox.hooks import Hooks, Subscription
from dx_dagster.sandbox.workspace import MadeUpWorkspace

PAUSES = (10.0, 20.0)  # before the second attempt and the third
_RECEIVED_OR_REFUSED = range(200, 500)  # only a 5xx, or no answer, is worth another attempt


@dataclass
class _Attempt:
    delivery: SandboxDelivery
    hook: Subscription
    number: int = 1
    due: float = 0.0


class HookSender:
    """Delivers what happened in a world since its first hook was made."""

    def __init__(self, world: MadeUpWorkspace, hooks: Hooks, clock: Callable[[], float] = time.monotonic) -> None:
        self._world, self._hooks, self._clock = world, hooks, clock
        self._watcher: Watcher | None = None
        self._waiting: list[_Attempt] = []

    def send(self) -> None:
        """Sends the deliveries of all changes since the last call, and those whose next attempt is due."""
        if self._watcher is None:
            if self._subscribed():
                self._watcher = Watcher(self._world)
            return
        self._waiting += self._wanted(self._watcher.deliveries())
        now = self._clock()
        due = [one for one in self._waiting if one.due <= now]
        self._waiting = [one for one in self._waiting if one.due > now]
        for one in due:
            if not _arrives(one) and one.number <= len(PAUSES):
                self._waiting.append(_Attempt(one.delivery, one.hook, one.number + 1, now + PAUSES[one.number - 1]))

    def _subscribed(self) -> list[tuple[str, Subscription]]:
        """All hooks of the world, each with the uuid of its workspace or repository."""
        subjects = [self._world.uuid, *(repository.uuid for repository in self._world.repositories)]
        return [
            (subject, hook) for subject in subjects for hook in list(self._hooks.by_subject.get(subject, {}).values())
        ]

    def _wanted(self, deliveries: list[SandboxDelivery]) -> Iterator[_Attempt]:
        hooks = self._subscribed() if deliveries else []
        for delivery in deliveries:
            subjects = {self._world.uuid, json.loads(delivery.body)["repository"]["uuid"]}
            for subject, hook in hooks:
                if subject in subjects and hook.shown["active"] and delivery.event_key in hook.shown["events"]:
                    yield _Attempt(delivery, hook)


def _arrives(attempt: _Attempt) -> bool:
    hook = attempt.hook
    try:
        status = attempt.delivery.send(hook.shown["url"], hook.secret or "", attempt.number, hook.uuid)
    except OSError:  # nothing listens, or it does not answer in time
        return False
    return status in _RECEIVED_OR_REFUSED
