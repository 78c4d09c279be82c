"""A Celery worker that takes no run from RabbitMQ while all of its places are taken.

Celery can do so with Redis alone. With RabbitMQ it takes as many runs as it has places in advance: they wait for it
while other workers are idle. RabbitMQ also closes the connection of a worker that has held a task for half an hour
without acknowledging it, and such a run waits for as long as others are at work.
"""

from typing import Any

from celery import bootsteps, signals
from celery.worker import state

_SECONDS_BETWEEN_LOOKS = 0.2
_SIGNAL = "dx_dagster.automation.celery_free_places"


class FreePlaces(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """Stops consuming with the task that takes the last place, and continues once a place is free."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._consumer: Any = None
        self._is_paused = False
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Is called at each connection to the broker, before the first task is asked for."""
        if parent.connection.transport.driver_type == "redis":  # `worker_disable_prefetch` does the same
            return
        self._consumer = parent
        # One task at a time: the next one is sent when this one is acknowledged, and by then consuming has stopped.
        parent.qos.decrement_eventually(parent.initial_prefetch_count - 1)
        self._is_paused = self._places() <= 0
        if self._is_paused:  # after a lost connection; the worker would consume from all queues in a moment
            for name in parent.app.amqp.queues.consume_from:
                parent.task_consumer.cancel_by_queue(name)
        signals.task_received.connect(self._received, dispatch_uid=_SIGNAL)
        self._timer = parent.timer.call_repeatedly(_SECONDS_BETWEEN_LOOKS, self._look)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's interface
        """Is called when the connection ends."""
        signals.task_received.disconnect(dispatch_uid=_SIGNAL)
        if self._timer is not None:
            self._timer.cancel()
        self._consumer = self._timer = None

    terminate = stop

    def _places(self) -> int:
        return int(self._consumer.pool.num_processes) - len(state.reserved_requests)

    def _received(self, **_given: Any) -> None:
        if self._places() <= 1:  # this one is not counted yet
            self._consumer.task_consumer.cancel()
            self._is_paused = True

    def _look(self) -> None:
        if self._is_paused and self._places() > 0:
            consumer, wanted = self._consumer.task_consumer, self._consumer.app.amqp.queues.consume_from
            for name in wanted.keys() - {queue.name for queue in consumer.queues}:
                consumer.add_queue(wanted[name])
            consumer.consume()
            self._is_paused = False
