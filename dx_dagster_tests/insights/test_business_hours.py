"""Business hours, against a second implementation that looks at each minute."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo, available_timezones

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL

from dx_dagster.business_week import BusinessHoursError, BusinessWeek
from dx_dagster.insights.business_hours import BusinessTime, TimeZoneError
from dx_dagster.insights.people import people_file
from dx_dagster.settings import Settings
from dx_dagster.time_zones import unabbreviated
from dx_dagster.warehouse.database import Warehouse

Interval = tuple[datetime | None, datetime | None, str | None]
MINUTE = timedelta(minutes=1)
LONGEST = 6 * 24 * 60  # minutes
# Zones with clock changes in both hemispheres, by half an hour, at midnight, over a whole Friday (Apia, 2011), into and
# out of a month of fasting (Casablanca); and with offsets of half and quarter hours.
ZONES = {
    "Europe/Berlin": ["2024-03-31T01:00Z", "2024-10-27T01:00Z"],
    "America/New_York": ["2025-03-09T07:00Z", "2025-11-02T06:00Z"],
    "America/St_Johns": ["2008-03-09T03:31Z", "2024-11-03T04:30Z"],
    "America/Sao_Paulo": ["2018-11-04T03:00Z", "2018-02-18T02:00Z"],
    "Australia/Lord_Howe": ["2024-04-06T15:00Z", "2024-10-05T15:30Z"],
    "Africa/Cairo": ["2023-04-27T22:00Z", "2023-10-26T21:00Z"],
    "Africa/Casablanca": ["2024-03-10T02:00Z", "2024-04-14T02:00Z"],
    "Pacific/Apia": ["2011-12-30T10:00Z", "2012-03-31T14:00Z"],
    "Asia/Kolkata": ["2024-03-31T01:00Z"],
    "Asia/Kathmandu": ["2024-01-01T00:00Z"],
    "UTC": ["2024-02-29T00:00Z"],
}
# What `AT TIME ZONE` takes for an abbreviation of a fixed offset, as people write it, and what is stored of it.
ABBREVIATED = {zone: unabbreviated(zone) for zone in ("CET", "EET", "MET", "WET")}
HOURS = (
    "Mon-Fri 08:00-18:00",
    "Mon-Sun 00:00-24:00",
    "Sun-Thu 01:15-02:45, Fri 09:00-12:00, Fri 12:30-17:00, Sat 22:00-24:00",
)


def minutes_of(hours: str) -> list[bool]:
    """Each minute of a week, the second way: from the text, without the ranges of `BusinessWeek`."""
    names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    week = [False] * 7 * 1440
    for part in hours.split(", "):
        days, times = part.split(" ")
        first, last = names.index(days[:3]), names.index(days[-3:])
        opens, closes = (int(time[:2]) * 60 + int(time[3:]) for time in times.split("-"))
        for day in range(first, last + 1 + 7 * (last < first)):
            week[day % 7 * 1440 + opens : day % 7 * 1440 + closes] = [True] * (closes - opens)
    return week


def counted(week: list[bool], start: datetime, end: datetime, zone: str) -> float:
    """Seconds of business hours, by looking at each minute of universal time: local minutes begin with them."""
    total, at, there = timedelta(), start.replace(second=0, microsecond=0), ZoneInfo(zone)
    while at < end:
        local = at.astimezone(there)
        if week[local.weekday() * 1440 + local.hour * 60 + local.minute]:
            total += min(at + MINUTE, end) - max(at, start)
        at += MINUTE
    return total.total_seconds()


@pytest.fixture
def worked_out(database_url):
    """Works out intervals (start, end, zone of the person) in SQL."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        people = "INSERT INTO dx_users (source_id, tz) SELECT zone, zone FROM unnest(%s::text[]) zone"
        connection.execute(people, [[*{*ZONES, *ABBREVIATED, *ABBREVIATED.values(), "Mars/Olympus"}]])

    async def work(time: BusinessTime, intervals: Sequence[Interval]) -> list[float | None]:
        async with Warehouse(database_url) as warehouse, warehouse.transaction() as transaction:
            await time.prepare(transaction)
            seconds = time.seconds("i.opened", "i.acted", time.zone_of("z.name"))
            found = await transaction.rows(
                SQL(f"""SELECT {seconds} AS seconds
                    FROM unnest(%s::timestamptz[], %s::timestamptz[], %s::text[]) WITH ORDINALITY
                         AS i (opened, acted, tz, number) LEFT JOIN known_zones z ON z.name = i.tz
                    ORDER BY i.number"""),
                [list(column) for column in zip(*intervals, strict=True)],
            )
        return [row.seconds for row in found]

    return lambda text, intervals: asyncio.run(work(BusinessTime.parse(text), intervals))


@st.composite
def around_clock_changes(draw: st.DrawFn) -> Interval:
    """An interval from nothing to days long."""
    zone = draw(st.sampled_from(list(ZONES)))
    change = datetime.fromisoformat(draw(st.sampled_from(ZONES[zone])))
    minutes = st.one_of(st.integers(-120, 120), st.integers(-LONGEST // 2, LONGEST // 2))
    start, end = sorted(
        change + timedelta(minutes=draw(minutes), microseconds=draw(st.sampled_from([0, 1, 29_999_999])))
        for _ in range(2)
    )
    return start, end, zone


def test_business_hours_are_exact_at_the_minute_of_a_clock_change(worked_out):
    edges = [timedelta(minutes=minutes) for minutes in (-90, -60, -1, 0, 1, 30, 75)]
    intervals = [
        (at + before, at + after, zone)
        for zone, changes in ZONES.items()
        for at in map(datetime.fromisoformat, changes)
        for before, after in combinations(edges, 2)
    ]
    for hours in HOURS[1:]:
        week = minutes_of(hours)
        assert worked_out(f"{hours} in UTC", intervals) == [counted(week, *interval) for interval in intervals]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from(HOURS), st.lists(around_clock_changes(), min_size=1, max_size=25))
def test_business_hours_are_exact_to_the_microsecond_around_clock_changes(worked_out, hours, intervals):
    week = minutes_of(hours)
    assert worked_out(f"{hours} in UTC", intervals) == [counted(week, *interval) for interval in intervals]


def test_business_hours_of_a_year_are_those_of_its_minutes(worked_out):
    opened, acted = datetime(2021, 5, 3, 10, 30, tzinfo=UTC), datetime(2022, 5, 1, 12, tzinfo=UTC)
    interval = (opened, acted, "Australia/Lord_Howe")
    assert worked_out(f"{HOURS[2]} in UTC", [interval]) == [counted(minutes_of(HOURS[2]), *interval)]


def test_a_person_without_a_known_zone_has_that_of_the_settings(worked_out):
    """And no interval is negative."""
    morning, noon = datetime(2026, 3, 2, 3, tzinfo=UTC), datetime(2026, 3, 2, 5, tzinfo=UTC)
    asked = [(morning, noon, zone) for zone in ("Asia/Kolkata", None, "Mars/Olympus", "Europe/Berlin")]
    assert worked_out("Mon-Fri 08:00-18:00 in Asia/Kolkata", asked) == [7200, 7200, 7200, 0]
    assert worked_out("", [(noon, morning, None), (morning, morning, None), (None, noon, None)]) == [None, 0, None]
    with pytest.raises(TimeZoneError, match="DX_TIME_ZONE is Mars/Olympus, and the database server"):
        worked_out("Mon-Fri 08:00-18:00 in Mars/Olympus", asked)


def test_a_zone_that_has_the_name_of_an_abbreviation_keeps_its_clock_changes(worked_out, database_url):
    """Whether the settings name it or a person's line of the people file."""
    lines = "".join(f"{zone}@x.example,{zone}\n" for zone in ABBREVIATED)
    people = people_file.read(f"email,time_zone\n{lines}".encode())
    summer, winter = datetime(2026, 7, 1, 4, 30, tzinfo=UTC), datetime(2026, 1, 14, 4, 30, tzinfo=UTC)
    asked = [(day, day + timedelta(hours=2), one.tz) for one in people for day in (summer, winter)]
    week = minutes_of(HOURS[0])
    true = [counted(week, day, day + timedelta(hours=2), zone) for zone in ABBREVIATED for day in (summer, winter)]
    assert worked_out(f"{HOURS[0]} in UTC", asked) == true
    text = BusinessTime.text(Settings.given(time_zone="CET"))
    assert worked_out(text, [(*interval[:2], None) for interval in asked[:2]]) == true[:2]
    is_same = "SELECT noon AT TIME ZONE %s = noon::timestamp FROM (SELECT timestamptz '2026-07-01 12:00Z' AS noon) july"
    with psycopg.connect(database_url, autocommit=True) as connection:
        known = {name for (name,) in connection.execute("SELECT name FROM pg_timezone_names")}
        for zone in sorted(known & available_timezones()):
            connection.execute("SELECT set_config('TimeZone', %s, false)", [zone])
            assert connection.execute(is_same, [unabbreviated(zone)]).fetchone() == (True,), zone


@pytest.mark.parametrize(
    ("hours", "ranges"),
    [
        ("Mon 9:00-17:30", [(9 * 3600, 17 * 3600 + 1800)]),
        ("sat - SUN 00:00-24:00, Mon 00:00-06:00", [(0, 6 * 3600), (5 * 86400, 7 * 86400)]),
        ("Mon-Tue 08:00-12:00, Tue 11:00-13:00", [(28800, 43200), (86400 + 28800, 86400 + 46800)]),
    ],
)
def test_business_hours_are_read_as_written(hours, ranges):
    assert list(BusinessWeek.parse(hours).ranges) == ranges


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ("", "contains '', which is not a range of hours"),
        ("9 to 5", "contains '9 to 5', which is not a range of hours"),
        ("Mon, Tue 09:00-17:00", "contains 'Mon', which is not a range of hours"),
        ("Mon-Fre 09:00-17:00", "contains 'Mon-Fre 09:00-17:00'; days are Mon, Tue"),
        ("Mon 22:00-06:00", "which ends before it begins; split a night at 24:00"),
        ("Mon 09:00-24:30", "and 24:30 is not a time of day"),
        ("Mon 09:60-10:00", "and 09:60 is not a time of day"),
    ],
)
def test_wrong_business_hours_are_named(hours, said):
    with pytest.raises(BusinessHoursError, match=re.escape(said)):
        BusinessWeek.parse(hours)
