"""What the people file says: `stated_people`, and the teams that it names."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL

from dx_dagster.insights.people import people_file, resolving
from dx_dagster.insights.people.people_file import PeopleFileError, PersonLine
from dx_dagster.warehouse.database import Transaction

_UNKNOWN_ZONES = """
    SELECT zone FROM unnest(%s::text[]) AS zone
    WHERE zone <> 'UTC' AND lower(zone) NOT IN (SELECT lower(name) FROM pg_timezone_names)"""
_STATE = """
    INSERT INTO stated_people (line, email, name, team, tz, type)
    SELECT * FROM unnest(%(line)s::integer[], %(email)s::text[], %(name)s::text[], %(team)s::text[], %(tz)s::text[],
                         %(type)s::text[])"""
_SET_TEAMS = """
    INSERT INTO dx_teams AS old (source_id, source_parent_id, name, flattened_parent, parent)
    SELECT path, parent, name, parent, has_below
    FROM unnest(%(paths)s::text[], %(parents)s::text[], %(names)s::text[], %(has_below)s::boolean[])
         AS new (path, parent, name, has_below)
    ORDER BY path
    ON CONFLICT (source_id) DO UPDATE SET parent = EXCLUDED.parent, deleted_at = NULL
    WHERE (old.parent, old.deleted_at) IS DISTINCT FROM (EXCLUDED.parent, NULL)
    RETURNING (xmax = 0) AS inserted"""
_PLACE_TEAMS = """
    UPDATE dx_teams t SET parent_id = above.id FROM dx_teams above
    WHERE above.source_id = t.source_parent_id AND t.parent_id IS DISTINCT FROM above.id"""
_DROP_TEAMS = """
    UPDATE dx_teams SET deleted_at = now(), parent = false WHERE deleted_at IS NULL AND source_id <> ALL(%(paths)s)"""
_HIERARCHY = SQL("""
    SELECT above.id AS ancestor_id, below.id AS descendant_id,
           cardinality(string_to_array(below.source_id, '/')) - cardinality(string_to_array(above.source_id, '/'))
               AS generations
    FROM dx_teams below JOIN dx_teams above
      ON above.source_id = below.source_id OR starts_with(below.source_id, above.source_id || '/')
    WHERE below.deleted_at IS NULL AND above.deleted_at IS NULL""")
_DROP_HIERARCHY = SQL("""
    DELETE FROM dx_team_hierarchies h WHERE NOT EXISTS (
        SELECT FROM ({hierarchy}) right_ WHERE right_.ancestor_id = h.ancestor_id
        AND right_.descendant_id = h.descendant_id AND right_.generations = h.generations)""").format(
    hierarchy=_HIERARCHY
)
_ADD_HIERARCHY = SQL("""
    INSERT INTO dx_team_hierarchies (ancestor_id, descendant_id, generations)
    SELECT * FROM ({hierarchy}) right_ ORDER BY 2, 3 ON CONFLICT (ancestor_id, descendant_id) DO NOTHING""").format(
    hierarchy=_HIERARCHY
)
# Two lines of one person would contradict each other. What joins them may be known here only.
_TWICE = """
    SELECT min(s.line) AS first, max(s.line) AS second FROM stated_people s
    JOIN dx_user_identifiers i ON i.kind = 'email' AND i.value = s.email
    GROUP BY i.user_id HAVING count(*) > 1 ORDER BY 2"""
_WITH_ACCOUNTS = """
    SELECT count(*) AS people FROM stated_people s
    JOIN dx_user_identifiers i ON i.kind = 'email' AND i.value = s.email
    WHERE EXISTS (SELECT FROM identities a WHERE a.dx_user_id = i.user_id)"""
# Of addresses that several people use, none could be imported again.
_EXPORTED = """
    SELECT s.line, i.value AS email, u.name, t.source_id AS team, u.tz, u.type FROM dx_users u
    JOIN dx_user_identifiers i ON i.kind = 'email' AND i.value = u.email AND i.user_id = u.id
    LEFT JOIN dx_teams t ON t.id = u.team_id LEFT JOIN stated_people s ON s.email = i.value
    WHERE u.merged_into_id IS NULL AND (u.deleted_at IS NULL OR s.email IS NOT NULL)
    ORDER BY i.value"""
_LEFT_OUT = """
    SELECT count(*) AS people FROM dx_users u
    WHERE u.deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM dx_user_identifiers i WHERE i.kind = 'email' AND i.value = u.email AND i.user_id = u.id)"""


@dataclass(frozen=True)
class StatedResult:
    """What an import of people came to."""

    people: int
    with_accounts: int
    teams: int
    new_teams: int
    dropped_teams: int


async def state(transaction: Transaction, people: Sequence[PersonLine]) -> StatedResult:
    """Replaces what the people file said before, and follows it.

    Raises:
        PeopleFileError: two lines turn out to be one person; nothing may be committed.
    """
    await resolving.lock(transaction)
    await _refuse_zones(transaction, people)
    await transaction.execute("DELETE FROM stated_people")
    await transaction.execute(_STATE, {name: [getattr(one, name) for one in people] for name in PersonLine._fields})
    teams = sorted({path for one in people for path in people_file.paths(one.team)})
    new, dropped = await _set_teams(transaction, teams)
    await resolving.resolve(transaction)
    await resolving.count_contributors(transaction)
    twice = await transaction.rows(_TWICE)
    if twice:
        raise PeopleFileError(
            "Lines of the file are wrong.",
            [f"line {row.second}: line {row.first} is the same person under another address" for row in twice],
        )
    found = await transaction.row(_WITH_ACCOUNTS)
    return StatedResult(len(people), found.people, len(teams), new, dropped)


async def exported(transaction: Transaction) -> tuple[list[PersonLine], int]:
    """Everybody who has an address of their own, and how many have none."""
    rows = await transaction.rows(_EXPORTED)
    people = [PersonLine(row.line or 0, row.email, row.name, row.team, row.tz, row.type) for row in rows]
    return people, (await transaction.row(_LEFT_OUT)).people


async def _refuse_zones(transaction: Transaction, people: Sequence[PersonLine]) -> None:
    """Refuses time zones that this PostgreSQL does not have: its statements would fail on them later."""
    zones = sorted({one.tz for one in people if one.tz})
    unknown = {row.zone for row in await transaction.rows(_UNKNOWN_ZONES, [zones])} if zones else set()
    if unknown:
        raise PeopleFileError(
            "Lines of the file are wrong.",
            [
                f"line {one.line}: PostgreSQL does not know the time zone {one.tz}"
                for one in people
                if one.tz in unknown
            ],
        )


async def _set_teams(transaction: Transaction, teams: Sequence[str]) -> tuple[int, int]:
    """Makes the teams, and marks all others deleted; returns how many are new and how many were dropped."""
    split = [path.rpartition("/") for path in teams]
    parents = [above or None for above, _, _ in split]
    rows = await transaction.rows(
        _SET_TEAMS,
        {
            "paths": list(teams),
            "parents": parents,
            "names": [name for _, _, name in split],
            "has_below": [path in set(parents) for path in teams],
        },
    )
    dropped = await transaction.execute(_DROP_TEAMS, {"paths": list(teams)})
    await transaction.execute(_PLACE_TEAMS)
    removed = await transaction.execute(_DROP_HIERARCHY)
    added = await transaction.execute(_ADD_HIERARCHY)
    new = sum(row.inserted for row in rows)
    transaction.count("dx_teams", inserted=new, updated=len(rows) - new + dropped)
    transaction.count("dx_team_hierarchies", inserted=added, updated=removed)
    return new, dropped
