"""Decides what a batch of deliveries makes necessary, from the deliveries and from what is stored.

Pure: no request, no SQL. What only the rows stored meanwhile can say (is the activity of a pull request stale?) is a
query of the step concerned.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dx_dagster.frames.reading import Json, link, time
from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.warehouse.merge import cannot_be
from dx_dagster.webhooks.payloads import PullNews, RepositoryNews

# From so many pull requests on, the repository's feed is fewer requests than the activity of each.
_FEED_PAYS_FROM = 5

NOT_IMPORTED = "the repository is not imported"
UNREADABLE = "the repository cannot be read"


@dataclass(frozen=True)
class Stored:
    """What the database holds when a batch is planned.

    Attributes:
        repositories: of the workspace, by uuid and by slug.
        changed_at: `updated_at` of each stored pull request, by its repository's id and its number.
        now: the time by the database's clock.
    """

    repositories: Mapping[str, Repository]
    changed_at: Mapping[tuple[str, int], datetime | None]
    now: datetime


@dataclass(frozen=True)
class AffectedRepository:
    """An imported repository and the deliveries about it."""

    repository: Repository
    news: RepositoryNews

    @property
    def is_pushed(self) -> bool:
        """Whether commits may have been pushed to the default branch."""
        return bool({self.repository.default_branch, None} & self.news.pushed)


@dataclass(frozen=True)
class AffectedPull:
    """A pull request of an imported repository and the deliveries about it."""

    repository: Repository
    news: PullNews


@dataclass(frozen=True)
class Shown:
    """A version of a pull request, newer than the stored row, that a delivery carried."""

    pull: AffectedPull
    value: Json
    received_at: datetime


@dataclass
class Plan:
    """What to store from the payloads, and what to fetch.

    Attributes:
        repositories: those that are imported and readable.
        refused: deliveries about the other repositories, by reason.
        store: pull requests whose payload is newer than the stored row.
        fetch: pull requests whose payloads do not say enough.
        feeds: repositories whose activity feed is read.
        pipelines: repositories whose pipelines have changed.
    """

    repositories: list[AffectedRepository] = field(default_factory=list)
    refused: list[tuple[str, RepositoryNews]] = field(default_factory=list)
    store: list[Shown] = field(default_factory=list)
    fetch: list[AffectedPull] = field(default_factory=list)
    feeds: list[AffectedRepository] = field(default_factory=list)
    pipelines: list[AffectedRepository] = field(default_factory=list)

    @property
    def pulls(self) -> list[AffectedPull]:
        return [AffectedPull(one.repository, pull) for one in self.repositories for pull in one.news.pulls.values()]

    def deliveries_about(self, repository_id: str, number: int) -> list[int]:
        """The ids of the deliveries about one pull request."""
        return [
            delivery
            for pull in self.pulls
            if pull.repository.id == repository_id and pull.news.number == number
            for delivery in pull.news.deliveries
        ]


def stale_repositories(news: Iterable[RepositoryNews], stored: Mapping[str, Repository]) -> list[RepositoryNews]:
    """The repositories whose own row must be fetched: it has changed, or is not stored."""
    return [one for one in news if one.itself or one.name not in stored]


def plan(news: Iterable[RepositoryNews], stored: Stored) -> Plan:
    """Plans a batch, once the rows of its repositories are up to date."""
    result = Plan()
    for about in news:
        repository = stored.repositories.get(about.name)
        if repository is None or not repository.accessible:
            result.refused.append((NOT_IMPORTED if repository is None else UNREADABLE, about))
            continue
        affected = AffectedRepository(repository, about)
        result.repositories.append(affected)
        if about.pipelines:
            result.pipelines.append(affected)
        for pull in about.pulls.values():
            _plan_pull(AffectedPull(repository, pull), stored, result)
    many = {one.repository.id for one in result.repositories if len(one.news.pulls) >= _FEED_PAYS_FROM}
    result.feeds = [one for one in result.repositories if one.repository.id in many]
    return result


def _plan_pull(pull: AffectedPull, stored: Stored, result: Plan) -> None:
    """Stores or fetches the pull request; neither where all payloads are older than the stored row."""
    changed_at = stored.changed_at.get((pull.repository.id, pull.news.number))
    newest = pull.news.newest()
    if newest is None:
        result.fetch.append(pull)
        return
    value, received_at = newest
    updated_at = time(value.get("updated_on"))
    if not _is_comparable(pull.repository, value, [updated_at, changed_at], stored.now) or updated_at is None:
        result.fetch.append(pull)
    elif changed_at is None or updated_at > changed_at:
        result.store.append(Shown(pull, value, received_at))
    elif updated_at == changed_at:
        # An approval need not move `updated_on`: a payload of the same time may be older than the row.
        result.fetch.append(pull)


def _is_comparable(repository: Repository, value: Json, moments: Iterable[datetime | None], now: datetime) -> bool:
    """Whether the payload's date says which is newer, the payload or the stored row."""
    if f"/{repository.slug}/" not in (link(value) or ""):
        return False  # the payload or the row is from before the repository was renamed
    return not any(moment and cannot_be(moment, now) for moment in moments)
