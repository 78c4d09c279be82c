"""What a batch of deliveries makes necessary is decided from them and from what is stored, and from nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dx_dagster.warehouse.imported.marks import Repository
from dx_dagster.webhooks.payloads import PullNews, RepositoryNews
from dx_dagster.webhooks.plan import NOT_IMPORTED, UNREADABLE, Stored, plan, stale_repositories

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
API = Repository("id of api", "{api}", "api", "main", NOW, True)
DOCS = Repository("id of docs", "{docs}", "docs", None, None, False)


def version(updated_at: datetime, **changes: Any) -> dict[str, Any]:
    return {
        "updated_on": updated_at.isoformat(),
        "links": {"html": {"href": "https://bitbucket.org/acme/api/pull-requests/7"}},
        "participants": [],
        "reviewers": [],
        **changes,
    }


def pull(number: int, *versions: dict[str, Any]) -> PullNews:
    return PullNews(number, deliveries=[number], versions=[(one, NOW) for one in versions])


def news(*pulls: PullNews, name: str = "{api}", **changes: Any) -> RepositoryNews:
    return RepositoryNews(name, pulls={one.number: one for one in pulls}, **changes)


def stored(changed_at: datetime | None = None) -> Stored:
    """Holds `api`, and its pull request 7 where that has changed at some time."""
    return Stored({"{api}": API, "api": API}, {(API.id, 7): changed_at} if changed_at else {}, NOW)


@pytest.mark.parametrize(
    ("row", "is_stored", "is_fetched"),
    [
        (None, True, False),
        (NOW - 2 * HOUR, True, False),
        (NOW - HOUR, False, True),
        (NOW, False, False),
        (datetime(2116, 1, 1, tzinfo=UTC), False, True),
    ],
    ids=["no row", "an older row", "a row of the same time", "a newer row", "a row of the future"],
)
def test_a_payload_is_stored_only_where_it_is_newer_than_the_row(
    row: datetime | None, *, is_stored: bool, is_fetched: bool
) -> None:
    made = plan([news(pull(7, version(NOW - HOUR)))], stored(row))
    assert [bool(made.store), bool(made.fetch)] == [is_stored, is_fetched]


def test_of_several_versions_the_newest_is_stored() -> None:
    older, newer = version(NOW - 2 * HOUR, title="old"), version(NOW - HOUR, title="new")
    [shown] = plan([news(pull(7, newer, older))], stored()).store
    assert shown.value == newer


@pytest.mark.parametrize(
    "versions",
    [
        [version(NOW, title="one"), version(NOW, title="other")],
        [version(NOW, links={"html": {"href": "https://bitbucket.org/acme/before/pull-requests/7"}})],
        [version(NOW, updated_on="?")],
        [{"updated_on": NOW.isoformat()}],
    ],
    ids=["two of one time that differ", "from before a rename", "without a date", "without participants"],
)
def test_a_payload_that_does_not_say_enough_has_its_pull_request_fetched(versions: list[dict[str, Any]]) -> None:
    made = plan([news(pull(7, *versions))], stored())
    assert not made.store
    assert [one.news.number for one in made.fetch] == [7]


def test_deliveries_about_other_repositories_are_refused_with_the_reason() -> None:
    about = [news(name="{nowhere}"), news(name="{docs}"), news(name="{api}")]
    held = Stored({"{docs}": DOCS, "{api}": API}, {}, NOW)
    made = plan(about, held)
    assert made.refused == [(NOT_IMPORTED, about[0]), (UNREADABLE, about[1])]
    assert [one.repository for one in made.repositories] == [API]


def test_repositories_that_changed_or_are_not_stored_are_fetched() -> None:
    about = [news(name="{nowhere}"), news(name="{api}"), news(name="api", itself=True)]
    assert stale_repositories(about, stored().repositories) == [about[0], about[2]]


def test_from_five_pull_requests_on_the_feed_is_read() -> None:
    assert not plan([news(*map(pull, range(4)))], stored()).feeds
    assert [one.repository for one in plan([news(*map(pull, range(5)))], stored()).feeds] == [API]


@pytest.mark.parametrize(("pushed", "expected"), [({"main"}, True), ({None}, True), ({"topic"}, False), (set(), False)])
def test_a_push_to_the_default_branch_or_to_an_unnamed_one_counts(pushed: set[str | None], *, expected: bool) -> None:
    [affected] = plan([news(pushed=pushed)], stored()).repositories
    assert affected.is_pushed is expected
