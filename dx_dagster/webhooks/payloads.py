"""Reads webhook deliveries: which repositories, pull requests, branches and pipelines have changed. Pure."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from dx_dagster.frames.pulls import states_participants
from dx_dagster.frames.reading import Json, record, records, text, time
from dx_dagster.warehouse.webhooks.inbox import StoredDelivery

# Every pullrequest:… says that the pull request has changed; of comments, the feed does not show every change.
_PULL = "pullrequest:"
_COMMENT = "pullrequest:comment_"
_PUSH = "repo:push"
# Each of them brings commits, which change the repository's `updated_on`; its repo:push may be late or lost.
_PUSHES = frozenset({_PUSH, "pullrequest:push", "pullrequest:fulfilled"})
_STATUS = frozenset({"repo:commit_status_created", "repo:commit_status_updated"})
_REPOSITORY = frozenset({"repo:created", "repo:updated", "repo:deleted", "repo:fork", "repo:imported", "repo:transfer"})
# There is no push for the branches that a new repository begins with.
_BORN = frozenset({"repo:created", "repo:imported", "repo:transfer"})
UNDERSTOOD = (
    *("pullrequest:created", "pullrequest:updated", "pullrequest:push", "pullrequest:approved"),
    *("pullrequest:unapproved", "pullrequest:changes_request_created", "pullrequest:changes_request_removed"),
    *("pullrequest:fulfilled", "pullrequest:rejected", "pullrequest:comment_created", "pullrequest:comment_updated"),
    *("pullrequest:comment_deleted", "pullrequest:comment_resolved", "pullrequest:comment_reopened"),
    *(_PUSH, *sorted(_STATUS), "repo:created", "repo:updated", "repo:deleted", "repo:fork", "repo:imported"),
    "repo:transfer",
)
"""Event keys that are applied; `webhooks install` subscribes to them."""

_RESULTS = re.compile(r"/results/(\d{1,18})(?!\d)")

# The fields from which the rows of a pull request and its participants are derived.
_SHOWN = (
    *("title", "state", "draft", "comment_count", "task_count", "author", "closed_by", "source", "destination"),
    *("merge_commit", "participants", "reviewers"),
)


@dataclass
class PullNews:
    """Deliveries about one pull request.

    Attributes:
        deliveries: their ids.
        versions: the pull request as each delivery shows it, and when the delivery arrived.
        comments: whether comments were written, changed or deleted.
    """

    number: int
    deliveries: list[int] = field(default_factory=list)
    versions: list[tuple[Json, datetime]] = field(default_factory=list)
    comments: bool = False

    def newest(self) -> tuple[Json, datetime] | None:
        """The newest version; None where it cannot be determined.

        An approval need not change `updated_on`, so different versions may have the same date.
        """
        dated = [(moment, one, at) for one, at in self.versions if (moment := time(one.get("updated_on")))]
        if not dated or any(not states_participants(one) for one, _ in self.versions):
            return None
        latest = max(moment for moment, _, _ in dated)
        candidates = [(one, at) for moment, one, at in dated if moment == latest]
        if len({_shown(one) for one, _ in candidates}) > 1:
            return None
        return candidates[-1]


@dataclass
class RepositoryNews:
    """Deliveries about one repository and its contents.

    Attributes:
        name: its uuid with braces, or its slug where no delivery has the uuid.
        deliveries: ids of those that are not about a pull request.
        itself: whether its own row is stale.
        pushed: branches that were pushed to; None stands for unnamed ones.
        pipelines: ids of the deliveries about its pipelines, which `deliveries` contains too.
        pipeline_numbers: the numbers of these pipelines; None stands for an unnamed one.
    """

    name: str
    deliveries: list[int] = field(default_factory=list)
    itself: bool = False
    pushed: set[str | None] = field(default_factory=set)
    pipelines: list[int] = field(default_factory=list)
    pipeline_numbers: set[int | None] = field(default_factory=set)
    pulls: dict[int, PullNews] = field(default_factory=dict)

    @property
    def all_deliveries(self) -> list[int]:
        return [*self.deliveries, *(delivery for pull in self.pulls.values() for delivery in pull.deliveries)]


def read(deliveries: Iterable[StoredDelivery]) -> tuple[list[RepositoryNews], dict[str, list[int]]]:
    """Groups deliveries by repository; returns also the ids of those that need no work, by reason."""
    news: dict[str, RepositoryNews] = {}
    nothing: dict[str, list[int]] = {}
    for delivery in deliveries:
        reason = _read_one(delivery, json.loads(delivery.body), news)
        if reason is not None:
            nothing.setdefault(reason, []).append(delivery.id)
    return list(news.values()), nothing


def _read_one(delivery: StoredDelivery, payload: Json, news: dict[str, RepositoryNews]) -> str | None:
    key = delivery.event_key
    if not key.startswith(_PULL) and key != _PUSH and key not in _STATUS and key not in _REPOSITORY:
        return f"nothing depends on {key}"
    name = _name(record(payload, "repository"))
    if name is None:
        return "it names no repository"
    if key in _STATUS and not _is_of_pipelines(record(payload, "commit_status")):
        return "the status is not of Bitbucket Pipelines"
    if key.startswith(_PULL) and delivery.pull_number is None:
        return "it names no pull request"
    about = news.setdefault(name, RepositoryNews(name))
    about.itself = about.itself or key in _PUSHES
    if key.startswith(_PULL):
        _read_pull(delivery, payload, about.pulls)
        return None
    about.deliveries.append(delivery.id)
    about.itself = about.itself or key not in _STATUS
    if key in _STATUS:
        about.pipelines.append(delivery.id)
        about.pipeline_numbers.add(_run_number(record(payload, "commit_status")))
    if key == _PUSH:
        about.pushed.update(_branches(payload))
    if key in _BORN:
        about.pushed.add(None)
    if key == "repo:fork" and (fork := _name(record(payload, "fork"))) and fork != name:
        copy = news.setdefault(fork, RepositoryNews(fork))
        copy.itself = True
        copy.pushed.add(None)
    return None


def _read_pull(delivery: StoredDelivery, payload: Json, pulls: dict[int, PullNews]) -> None:
    number = delivery.pull_number or 0
    pull = pulls.setdefault(number, PullNews(number))
    pull.deliveries.append(delivery.id)
    pull.versions.append((record(payload, "pullrequest"), delivery.received_at))
    pull.comments = pull.comments or delivery.event_key.startswith(_COMMENT)


def _name(repository: Json) -> str | None:
    return text(repository.get("uuid")) or (text(repository.get("full_name")) or "").rpartition("/")[2] or None


def _branches(payload: Json) -> Iterator[str | None]:
    """The branches that were pushed to, without tags."""
    changes = records(payload, "push", "changes")
    for change in changes:
        for end in (record(change, "new"), record(change, "old")):
            if end and end.get("type") != "tag":
                yield text(end.get("name"))
    if not changes:
        yield None


def body_of(body: str) -> Json:
    """The payload of a stored delivery."""
    payload: Json = json.loads(body)
    return payload


def run_number(payload: Json) -> int | None:
    """The number of the pipeline that a delivery of a status is about."""
    return _run_number(record(payload, "commit_status"))


def _is_of_pipelines(status: Json) -> bool:
    """Whether a status is of Bitbucket Pipelines and not of another CI; true where it has no URL."""
    url = text(status.get("url"))
    host = urlsplit(url).hostname if url else None
    return host is None or host.endswith("bitbucket.org")


def _run_number(status: Json) -> int | None:
    """The number of the pipeline in the URL of a status: …/results/12."""
    named = _RESULTS.search(text(status.get("url")) or "")
    return int(named[1]) if named else None


def _shown(value: Json) -> str:
    return json.dumps([value.get(name) for name in _SHOWN], sort_keys=True)
