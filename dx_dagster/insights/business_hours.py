"""Seconds of an interval that lie within business hours, in SQL and in the zone of a person.

Where no clock is changed, they are the difference between two readings of a clock that runs in business hours only.
A clock change moves that clock too, if it skips or repeats business hours; these leaps are subtracted. So the figure is
exact over any clock change, and its price does not depend on the interval's length.

All local times are PostgreSQL's (`AT TIME ZONE`), for its zones may differ from Python's.
"""

from dataclasses import dataclass
from typing import Self

from psycopg.sql import SQL

from dx_dagster.business_week import WEEK, BusinessWeek
from dx_dagster.settings import Settings, SettingsError
from dx_dagster.warehouse.database import Transaction

_IN = " in "
_MONDAY = 4 * 86_400  # the epoch began on a Thursday

# The server reads all its files of zones, 0.1 s, to tell their names: not where nobody works elsewhere than in UTC.
_KNOWN_ZONES = """
    CREATE TEMPORARY TABLE known_zones ON COMMIT DROP AS
    SELECT 'UTC' AS name
    UNION
    SELECT name FROM pg_timezone_names
    WHERE EXISTS (SELECT WHERE %(zone)s::text <> 'UTC' UNION ALL SELECT FROM dx_users WHERE tz <> 'UTC')
      AND (name = %(zone)s::text OR name IN (SELECT tz FROM dx_users))"""

# A change is looked for by days, then by hours, then by minutes: since 1972 all lie on whole minutes.
_CHANGES = """
    SELECT zone.name, minute + interval '1 minute' AS at,
           (minute AT TIME ZONE zone.name) + interval '1 minute' AS before,
           (minute + interval '1 minute') AT TIME ZONE zone.name AS after
    FROM (SELECT name FROM known_zones WHERE name <> 'UTC') zone,
    LATERAL (SELECT day FROM generate_series(timestamptz '1990-01-01 00:00Z', now() + interval '2 years', '24h') day
             WHERE (day + interval '24h') AT TIME ZONE zone.name - day AT TIME ZONE zone.name <> interval '24h'
            ) days,
    LATERAL (SELECT hour FROM generate_series(day, day + interval '23 hours', '1 hour') hour
             WHERE (hour + interval '1 hour') AT TIME ZONE zone.name - hour AT TIME ZONE zone.name <> interval '1 hour'
            ) hours,
    LATERAL (SELECT minute FROM generate_series(hour, hour + interval '59 minutes', '1 minute') minute
             WHERE (minute + interval '1 minute') AT TIME ZONE zone.name - minute AT TIME ZONE zone.name
                   <> interval '1 minute') minutes"""
_CLOCK_CHANGES = """
    CREATE TEMPORARY TABLE clock_changes ON COMMIT DROP AS
    SELECT name AS zone, at, leap FROM (
        SELECT name, at, {after} - {before} AS leap
        FROM (SELECT name, at, {starts} AS starts, {ends} AS ends FROM ({changes}) changes OFFSET 0) clock
        OFFSET 0) leaps
    WHERE leap <> 0"""

# OFFSET 0 keeps each local time from being worked out again for each of its uses.
_SECONDS = """
    CASE WHEN {end} >= {start} THEN (
        SELECT round(({read} - COALESCE((
            SELECT sum(clock_changes.leap) FROM clock_changes
            WHERE clock_changes.zone = {zone} AND clock_changes.at > {start} AND clock_changes.at <= {end}
            ), 0)) * 1000000) / 1000000
        FROM (SELECT {starts} AS starts, {ends} AS ends OFFSET 0) clock) END"""


class TimeZoneError(SettingsError):
    """The database server does not know the zone of DX_TIME_ZONE."""

    def __init__(self, zone: str) -> None:
        super().__init__(
            f"DX_TIME_ZONE is {zone}, and the database server does not know this zone: its time zone data is another "
            "edition than Python's. Write another name of the zone, or update the server's time zone data."
        )


@dataclass(frozen=True)
class BusinessTime:
    """Business hours, and the zone in which they count for those who have none of their own."""

    week: BusinessWeek
    zone: str

    @staticmethod
    def text(settings: Settings) -> str:
        """The settings that business hours depend on, as one text for `building.run`."""
        return f"{settings.business_hours}{_IN}{settings.time_zone}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The business hours of such a text; of an empty one, those of the default settings."""
        fields = Settings.model_fields
        hours, _, zone = text.rpartition(_IN)
        return cls(BusinessWeek.parse(hours or fields["business_hours"].default), zone or fields["time_zone"].default)

    async def prepare(self, transaction: Transaction) -> None:
        """Makes the temporary tables that `seconds` and `zone_of` read: `known_zones` and `clock_changes`.

        Raises:
            TimeZoneError: the server does not know the zone of the settings.
        """
        await transaction.execute(_KNOWN_ZONES, {"zone": self.zone})
        if await transaction.row("SELECT FROM known_zones WHERE name = %s", [self.zone]) is None:
            raise TimeZoneError(self.zone)
        leaps = _CLOCK_CHANGES.format(
            changes=_CHANGES,
            starts=_clock("before"),
            ends=_clock("after"),
            before=self._read("starts"),
            after=self._read("ends"),
        )
        await transaction.execute(SQL(leaps))
        await transaction.execute("CREATE INDEX ON clock_changes (zone, at)")
        await transaction.execute("ANALYZE known_zones, clock_changes")

    def zone_of(self, name: str) -> str:
        """SQL: the zone that applies, from `known_zones.name` joined to that of the person."""
        return f"COALESCE({name}, '{self.zone}')"

    def seconds(self, start: str, end: str, zone: str) -> str:
        """SQL: seconds of business hours from one moment to another; null where the second is the earlier one.

        `start`, `end`: SQL of points in time. `zone`: SQL of the name of a zone, one of `known_zones`.
        """
        return _SECONDS.format(
            start=start,
            end=end,
            zone=zone,
            starts=_clock(f"{start} AT TIME ZONE {zone}"),
            ends=_clock(f"{end} AT TIME ZONE {zone}"),
            read=f"{self._read('ends')} - {self._read('starts')}",
        )

    def _read(self, moment: str) -> str:
        """SQL: seconds of business hours from a certain Monday to a local time of `_clock`."""
        weeks = f"floor({moment} / {WEEK})"
        ranges = [
            f"LEAST(GREATEST({moment} - {weeks} * {WEEK} - {opens}, 0), {closes - opens})"
            for opens, closes in self.week.ranges
        ]
        return f"({weeks} * {self.week.seconds} + {' + '.join(ranges)})"


def _clock(local: str) -> str:
    """SQL: seconds from a certain Monday to a local time."""
    return f"(date_part('epoch', {local}) - {_MONDAY})"
