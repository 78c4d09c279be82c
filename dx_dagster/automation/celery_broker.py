"""What a Celery broker and its workers answer within seconds, for `dx-dagster doctor`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from dagster_celery.defaults import task_default_queue
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from dx_dagster.automation.celery_launcher import WorkerRunLauncher, waiting_tasks
from dx_dagster.settings import brokers

REPLY_SECONDS = 2.0  # a worker answers at once, also when all its places are taken
_CONNECT_SECONDS = 3
_CONFIGURATION: Mapping[str, Any] = {
    "broker_connection_timeout": _CONNECT_SECONDS,
    "broker_transport_options": {
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "interval_max": 0,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _CONNECT_SECONDS,
    },
}
_REFUSALS = frozenset({"AuthenticationError", "AuthorizationError", "NoPermissionError", "AccessRefused"})


class BrokerError(Exception):
    """The broker cannot be used; the text says why, without its password.

    Attributes:
        refuses: whether it answers, and refuses the user or the password.
    """

    def __init__(self, error: BaseException, passwords: Collection[str]) -> None:
        chain = [one for one in (error, error.__cause__) if one is not None]
        names = {kind.__name__ for one in chain for kind in type(one).__mro__}
        self.refuses = bool(names & _REFUSALS)
        words = " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__
        is_secret = any(one in words for one in passwords)
        super().__init__(type(chain[-1]).__name__ if is_secret else words.rstrip("."))


@dataclass(frozen=True)
class BrokerAnswers:
    """The state of the queue of runs.

    Attributes:
        waiting: runs that no worker has taken yet.
        places: how many runs each worker takes at once, by the worker's name.
    """

    waiting: int
    places: Mapping[str, int]


def ask(broker: SecretStr) -> BrokerAnswers:
    """Asks the broker, and the workers that take runs from it.

    Raises:
        BrokerError: the broker does not answer, or refuses the user.
    """
    celery = WorkerRunLauncher(task_default_queue, _CONFIGURATION, broker=broker.get_secret_value()).celery
    written = [urlsplit(one.get_secret_value()).password for one in brokers(broker)]
    passwords = {form for one in written if one for form in (one, unquote(one))}
    with celery.connection_for_read() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
            return BrokerAnswers(waiting_tasks(connection, task_default_queue), _places(celery, connection))
        except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
            raise BrokerError(error, passwords) from None


def _places(celery: Any, connection: Any) -> dict[str, int]:
    """By worker; one that takes its tasks from other queues is another program's."""
    queues = celery.control.inspect(timeout=REPLY_SECONDS, connection=connection).active_queues() or {}
    ours = [name for name, served in queues.items() if task_default_queue in {queue["name"] for queue in served}]
    if not ours:
        return {}
    # It returns with the last answer.
    inspect = celery.control.inspect(ours, timeout=REPLY_SECONDS, connection=connection, limit=len(ours))
    return {name: int(stats["pool"].get("max-concurrency", 1)) for name, stats in (inspect.stats() or {}).items()}
