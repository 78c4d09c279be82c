"""Texts, numbers and times at their limits, up to PostgreSQL and back."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dx_dagster.frames import comments, pipelines, pulls, users
from dx_dagster.frames.reading import number, text, time
from dx_dagster.warehouse import merge
from dx_dagster.warehouse.database import Warehouse
from dx_dagster_tests.payloads.evidence import NOW, REPOSITORY, WORKSPACE, Json
from dx_dagster_tests.payloads.made_up import ACCOUNT, COMMENT, PIPELINE, PULL, fits

# All there is in JSON: halves of surrogate pairs, which no UTF-8 can hold, and NUL, which no PostgreSQL can.
ANYTHING = st.text(st.characters() | st.characters(categories=["Cs"]) | st.just("\x00"), max_size=20)


def storable(written: str) -> str:
    """What must be stored, said another way than the code does: halves of pairs become U+FFFD, pairs one character."""
    paired = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: chr(0x10000 + ((ord(pair[0][0]) - 0xD800) << 10) + ord(pair[0][1]) - 0xDC00),
        written.replace("\x00", ""),
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", paired)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANYTHING, min_size=1, max_size=40))
def test_any_text_arrives_in_postgresql(database_url, written):
    told = [{**COMMENT, "id": place, "content": {"raw": one}} for place, one in enumerate(written)]
    assert stored_contents(database_url, told)[: len(written)] == [storable(one) for one in written]


def stored_contents(database_url: str, told: Sequence[Json]) -> list[str]:
    frame = comments.comments(WORKSPACE, [(REPOSITORY, one) for one in told], NOW)

    async def there_and_back() -> list[str]:
        async with Warehouse(database_url) as warehouse:
            async with warehouse.transaction() as transaction:
                await transaction.merge(merge.COMMENTS, frame)
            rows = await warehouse.rows("SELECT content FROM bitbucket_pull_comments ORDER BY source_id")
            return [row.content for row in rows]

    return asyncio.run(there_and_back())


def test_control_characters_and_odd_spaces_are_kept(database_url):
    odd = "".join(map(chr, [*range(1, 0x20), 0x7F, 0x85, 0xA0, 0x200B, 0x2028, 0x202E, 0xFEFF, 0xFFFE, 0xFFFF]))
    assert stored_contents(database_url, [{**COMMENT, "content": {"raw": f"a\x00{odd}\\u0000\\ \"'"}}]) == [
        f"a{odd}\\u0000\\ \"'"
    ]


@given(st.text(max_size=10))
def test_a_text_without_oddities_is_left_alone(written):
    assert text(written) == written.replace("\x00", "")


@pytest.mark.parametrize("digits", range(10))
@pytest.mark.parametrize(
    ("zone", "hour"), [("Z", 10), ("+00:00", 10), ("+02:00", 8), ("-05:30", 15)], ids=["Z", "utc", "east", "west"]
)
def test_times_are_cut_to_microseconds(digits, zone, hour):
    fraction = f".{'987654321'[:digits]}" if digits else ""
    found = time(f"2026-04-07T10:00:59{fraction}{zone}")
    assert found is not None
    assert found.utcoffset() == timedelta()
    assert (found.hour, found.second) == (hour, 59)
    assert found.microsecond == int("987654"[:digits].ljust(6, "0")), "cut, not rounded"


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=OFFSETS))  # noqa: DTZ001
def test_a_time_survives_whatever_its_offset(when):
    found = time(when.isoformat())
    assert found == when
    assert found.tzinfo is UTC


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_calendar_holds_in_utc_is_none(written):
    assert time(written) is None


@pytest.mark.parametrize("huge", [2**31, 2**63, -(2**63) - 1, 10**30])
def test_a_number_that_no_column_holds_does_not_end_the_import(huge):
    assert fits(pulls.pulls(WORKSPACE, REPOSITORY, [{**PULL, "comment_count": huge}], NOW), pulls.SCHEMA)
    lines = {**COMMENT, "inline": {"path": "a", "from": huge, "to": huge}}
    assert fits(comments.comments(WORKSPACE, [(REPOSITORY, lines)], NOW), comments.SCHEMA)
    if abs(huge) >= 2**63:
        run = {**PIPELINE, "build_number": huge}
        assert fits(pipelines.pipelines(WORKSPACE, REPOSITORY, [run], NOW), pipelines.SCHEMA)


def test_an_account_of_an_odd_type_is_a_person():
    frame = users.users(WORKSPACE, [{**ACCOUNT, "type": []}], NOW)
    assert frame["type"].to_list() == ["human"]


@pytest.mark.parametrize("odd", [True, 1.0, "1", None, [], {}])
def test_only_integers_are_numbers(odd):
    assert number(odd) is None


# --- the same thing twice ---


def test_a_frame_may_hold_the_same_row_twice(database_url):
    older, newer = "2026-04-07T09:00:00Z", "2026-04-07T09:00:01Z"
    told = [{**COMMENT, "updated_on": when, "content": {"raw": when}} for when in (newer, older, newer, older)]
    assert stored_contents(database_url, told) == [newer]
