"""Writes who is who: `identities`, `dx_users` and `dx_user_identifiers`.

All workspaces at once: a person spans them, and one workspace's evidence may join or part accounts of another. What is
read are the accounts that changed, and everything that an account id, an address or a person connects with them. Only
rows that differ are written.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from dx_dagster.insights.changes import Scope
from dx_dagster.insights.people.joining import Account, Address, Evidence, Joined, Person, Stated, join
from dx_dagster.warehouse.database import Transaction
from dx_dagster.warehouse.imported import emails

SOURCE = "bitbucket"
HUMAN = "human"
_EMAIL = "email:"
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('people', 0))"

_USERS = """
    SELECT u.id::text AS id, u.source_id, NULLIF(u.account_id, '') AS account_id, u.name, u.email, u.active, u.left_at,
           u.type, u.imported_type, t.type AS said_type, t.said_by,
           i.dx_user_id, i.reason, i.by_hand, extract(epoch FROM i.linked_at)::float8 AS linked_at
    FROM connected_users c JOIN bitbucket_users u USING (id)
    LEFT JOIN identities i ON i.source = 'bitbucket' AND i.source_id = u.id
    LEFT JOIN account_types t ON t.source_id = u.source_id"""
_ADDRESSES = """
    SELECT e.user_id::text AS user_id, e.email, e.verified, e.of_commits
    FROM connected_users c JOIN account_emails e ON e.user_id = c.id"""
_STATED = """
    SELECT s.email, s.line, s.name, s.team, s.tz, s.type FROM connected_addresses c JOIN stated_people s USING (email)
    ORDER BY s.line, s.email"""
_PEOPLE = """
    SELECT p.id, p.source_id, p.team_id, p.name, p.email, p.developer, p.type, p.tz, p.deleted_at, p.merged_into_id
    FROM connected_people c JOIN dx_users p USING (id)"""
_TEAMS = "SELECT id, source_id FROM dx_teams WHERE deleted_at IS NULL"
_IDENTIFIERS = """
    SELECT i.value, i.user_id FROM connected_people c
    JOIN dx_user_identifiers i ON i.user_id = c.id WHERE i.kind = 'email'"""

_CONNECTED = """
    CREATE TEMPORARY TABLE IF NOT EXISTS connected_users (id uuid PRIMARY KEY, round integer NOT NULL) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS connected_addresses (email text PRIMARY KEY, round integer NOT NULL)
        ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS connected_people (id bigint PRIMARY KEY, round integer NOT NULL)
        ON COMMIT DROP;
    TRUNCATE connected_users, connected_addresses, connected_people"""
_EVERYTHING = """
    INSERT INTO connected_users SELECT id, 0 FROM bitbucket_users;
    INSERT INTO connected_addresses SELECT email, 0 FROM account_emails UNION SELECT email, 0 FROM stated_people;
    INSERT INTO connected_people SELECT id, 0 FROM dx_users"""
_START = "INSERT INTO connected_users SELECT DISTINCT unnest(%s::uuid[]), 0"
# Each round follows what the last one found.
_FOLLOW_USERS = """
    INSERT INTO connected_addresses
    SELECT e.email, %(round)s FROM connected_users c JOIN account_emails e ON e.user_id = c.id
    WHERE c.round = %(round)s - 1
    ON CONFLICT DO NOTHING;
    INSERT INTO connected_people
    SELECT i.dx_user_id, %(round)s FROM connected_users c
    JOIN identities i ON i.source = 'bitbucket' AND i.source_id = c.id WHERE c.round = %(round)s - 1
    UNION
    SELECT p.id, %(round)s FROM connected_users c JOIN bitbucket_users u USING (id)
    JOIN dx_users p ON p.source_id IN ('user:' || u.source_id, 'account:' || u.account_id)
    WHERE c.round = %(round)s - 1
    ON CONFLICT DO NOTHING;
    INSERT INTO connected_users
    SELECT o.id, %(round)s FROM connected_users c JOIN bitbucket_users u USING (id)
    JOIN bitbucket_users o ON o.source_id = u.source_id WHERE c.round = %(round)s - 1
    UNION
    SELECT o.id, %(round)s FROM connected_users c JOIN bitbucket_users u USING (id)
    JOIN bitbucket_users o ON o.account_id = u.account_id WHERE u.account_id <> '' AND c.round = %(round)s - 1
    ON CONFLICT DO NOTHING"""
_FOLLOW_OTHERS = """
    INSERT INTO connected_people
    SELECT p.id, %(round)s FROM connected_addresses c JOIN dx_users p ON p.source_id = 'email:' || c.email
    WHERE c.round = %(round)s
    ON CONFLICT DO NOTHING;
    INSERT INTO connected_addresses
    SELECT substr(p.source_id, 7), %(round)s FROM connected_people c JOIN dx_users p USING (id)
    WHERE p.source_id LIKE 'email:%%' AND c.round = %(round)s
    ON CONFLICT DO NOTHING;
    INSERT INTO connected_users
    SELECT e.user_id, %(round)s FROM connected_addresses c JOIN account_emails e USING (email)
    WHERE c.round = %(round)s
    UNION
    SELECT i.source_id, %(round)s FROM connected_people c JOIN identities i ON i.dx_user_id = c.id
    WHERE i.source = 'bitbucket' AND c.round = %(round)s
    UNION
    SELECT u.id, %(round)s FROM connected_people c JOIN dx_users p USING (id)
    JOIN bitbucket_users u ON u.source_id = substr(p.source_id, 6)
    WHERE p.source_id LIKE 'user:%%' AND c.round = %(round)s
    UNION
    SELECT u.id, %(round)s FROM connected_people c JOIN dx_users p USING (id)
    JOIN bitbucket_users u ON u.account_id = substr(p.source_id, 9)
    WHERE p.source_id LIKE 'account:%%' AND c.round = %(round)s
    ON CONFLICT DO NOTHING"""
_FOUND = "SELECT EXISTS (SELECT FROM connected_users WHERE round = %s) AS more"


class User(NamedTuple):
    """A user of one workspace, with its type and identity as they are stored."""

    id: str
    source_id: str
    account_id: str | None
    name: str | None
    email: str | None
    active: bool
    left_at: datetime | None
    type: str
    imported_type: str | None
    said_type: str | None
    said_by: str | None
    dx_user_id: int | None
    reason: str | None
    by_hand: bool | None
    linked_at: float | None

    @property
    def own_type(self) -> str:
        """The type without what the people file says: it must not change what that file's rows are joined with."""
        return (self.said_by == "api" and self.said_type) or self.imported_type or self.type


class StatedPerson(NamedTuple):
    """A row of the people file."""

    email: str
    line: int
    name: str | None
    team: str | None
    tz: str | None
    type: str | None


class PersonRow(NamedTuple):
    """The columns of `dx_users` that are derived."""

    id: int
    source_id: str
    team_id: int | None
    name: str | None
    email: str | None
    developer: bool
    type: str | None
    tz: str | None
    deleted_at: datetime | None
    merged_into_id: int | None


async def lock(transaction: Transaction) -> None:
    """Waits until no other transaction changes people. It must come before anything is read."""
    await transaction.execute(_ALONE)


_CHANGED_USERS = """
    SELECT DISTINCT u.id::text AS id FROM changed_rows c JOIN bitbucket_users u USING (id)
    WHERE c.kind IN ('user', 'address') AND c.changed_in >= %(since)s AND u.workspace_id = %(workspace)s"""


async def build(transaction: Transaction, scope: Scope) -> None:
    """Resolves the accounts of a workspace that changed since the last build: work of a `Build`."""
    if scope.everything:
        await resolve(transaction)
    else:
        await resolve(transaction, [row.id for row in await transaction.rows(_CHANGED_USERS, scope.bound)])


_PEOPLE_BUILT_TO = "SELECT built_to FROM build_marks WHERE workspace_id = %s AND asset = 'unified/dx_users'"


async def catch_up(transaction: Transaction, scope: Scope) -> None:
    """Resolves what changed since people were last built, for a table that is written together with theirs."""
    built = await transaction.row(_PEOPLE_BUILT_TO, [scope.workspace_id])
    since = built.built_to if built else 0
    await build(transaction, replace(scope, everything=since == 0, since=since))


async def resolve(transaction: Transaction, changed: Collection[str] | None = None) -> None:
    """Gives every account one identity, and every identity one person, in all workspaces.

    `changed`: ids of users that may have changed; None for all.
    """
    await lock(transaction)
    await emails.remember(transaction, changed)
    await _connect(transaction, changed)
    users = await transaction.fetch(User, _USERS)
    stated = await transaction.fetch(StatedPerson, _STATED)
    stored = {person.id: person for person in await transaction.fetch(PersonRow, _PEOPLE)}
    addresses = await transaction.fetch(Address, _ADDRESSES)
    joined = join(_evidence(users, addresses, stated, stored))
    await _number(transaction, joined.people)
    await _write_identities(transaction, joined.people, users)
    retyped = await _write_types(transaction, joined.people, users, stated)
    await _write_identifiers(transaction, joined)
    teams = {row.source_id: row.id for row in await transaction.rows(_TEAMS)}
    types = {user.id: user.type for user in users} | retyped
    described = _Described(_Known(users, stated, addresses, types, teams), joined)
    now = (await transaction.row("SELECT now() AS now")).now
    if await _write_people(transaction, joined.people, stored, described, now):
        await count_contributors(transaction)


async def count_contributors(transaction: Transaction) -> None:
    """Counts the people of each team."""
    await transaction.execute(_COUNT_CONTRIBUTORS)


async def _connect(transaction: Transaction, changed: Collection[str] | None) -> None:
    """Fills the temporary tables with the changed users, and with all that is connected to them."""
    await transaction.execute(_CONNECTED)
    if changed is None:
        await transaction.execute(_EVERYTHING)
    else:
        await transaction.execute(_START, [list(changed)])
        rounds, more = 0, bool(changed)
        while more:
            rounds += 1
            for statement in _FOLLOW_USERS, _FOLLOW_OTHERS:
                for part in statement.split(";"):
                    await transaction.execute(part, {"round": rounds})
            more = (await transaction.row(_FOUND, [rounds])).more
    await transaction.execute("ANALYZE connected_users; ANALYZE connected_addresses; ANALYZE connected_people")


def _evidence(
    users: Iterable[User],
    addresses: Sequence[Address],
    stated: Iterable[StatedPerson],
    stored: Mapping[int, PersonRow],
) -> Evidence:
    # A person who was made for an address keeps it, and the accounts with it, when the file names them no longer.
    known = {
        person.source_id.removeprefix(_EMAIL): person.type
        for person in stored.values()
        if person.source_id.startswith(_EMAIL)
    }
    known |= {one.email: one.type for one in stated}
    return Evidence(
        [
            Account(
                user.id,
                user.source_id,
                user.account_id,
                user.own_type != HUMAN,
                user.dx_user_id if user.by_hand and user.reason == "manual" else None,
                user.linked_at or 0,
                bool(user.by_hand) and user.reason == "alone",
            )
            for user in users
        ],
        addresses,
        [Stated(email, (kind or HUMAN) != HUMAN) for email, kind in known.items()],
        {number: person.source_id for number, person in stored.items()},
    )


# Ids are given in the order of the rows.
_NEW_PEOPLE = """
    INSERT INTO dx_users (source_id)
    SELECT home FROM unnest(%(homes)s::text[]) WITH ORDINALITY AS new (home, position) ORDER BY position
    RETURNING id, source_id"""


async def _number(transaction: Transaction, people: Sequence[Person]) -> None:
    """Makes rows for new people."""
    new = {person.home: person for person in people if person.number is None}
    if new:
        for row in await transaction.rows(_NEW_PEOPLE, {"homes": list(new)}):
            new[row.source_id].number = row.id
        transaction.count("dx_users", inserted=len(new))


_ADD_IDENTITIES = """
    INSERT INTO identities (source, source_id, dx_user_id, reason)
    SELECT 'bitbucket', new.source_id, new.person, new.reason
    FROM unnest(%(users)s::uuid[], %(people)s::bigint[], %(reasons)s::text[]) AS new (source_id, person, reason)
    ORDER BY 2"""
_CHANGE_IDENTITIES = """
    UPDATE identities i SET dx_user_id = new.person, reason = new.reason, by_hand = i.by_hand AND new.stays,
           linked_at = CASE WHEN i.dx_user_id = new.person THEN i.linked_at ELSE now() END
    FROM unnest(%(users)s::uuid[], %(people)s::bigint[], %(reasons)s::text[], %(stays)s::boolean[])
         AS new (source_id, person, reason, stays)
    WHERE i.source = 'bitbucket' AND i.source_id = new.source_id"""


async def _write_identities(transaction: Transaction, people: Sequence[Person], users: Sequence[User]) -> None:
    new: list[tuple[str, int | None, str]] = []
    changed: list[tuple[str, int | None, str, bool]] = []
    by_id = {user.id: user for user in users}
    for person in people:
        for user_id, reason in person.users.items():
            user = by_id[user_id]
            if user.dx_user_id is None:
                new.append((user_id, person.number, reason))
            elif (user.dx_user_id, user.reason) != (person.number, reason):
                changed.append((user_id, person.number, reason, reason in {"manual", "alone"}))
    if new:
        await transaction.execute(_ADD_IDENTITIES, _columns(("users", "people", "reasons"), new))
    if changed:
        await transaction.execute(_CHANGE_IDENTITIES, _columns(("users", "people", "reasons", "stays"), changed))
    transaction.count("identities", inserted=len(new), updated=len(changed))


_SET_TYPES = """
    INSERT INTO account_types AS old (source_id, type, said_by)
    SELECT * FROM unnest(%(users)s::text[], %(types)s::text[], %(said_by)s::text[]) ORDER BY 1
    ON CONFLICT (source_id) DO UPDATE SET type = EXCLUDED.type, said_by = EXCLUDED.said_by, said_at = now()"""
_UNSET_TYPES = "DELETE FROM account_types WHERE source_id = ANY(%s)"
# In the order of the key, as imports write them.
_FOLLOW_TYPES = """
    WITH differing AS MATERIALIZED (
        SELECT u.id, COALESCE(t.type, u.imported_type, u.type) AS type
        FROM connected_users c JOIN bitbucket_users u USING (id) LEFT JOIN account_types t ON t.source_id = u.source_id
        WHERE u.type <> COALESCE(t.type, u.imported_type, u.type)
        ORDER BY u.id FOR UPDATE OF u)
    UPDATE bitbucket_users u SET type = d.type, bot = d.type <> 'human' FROM differing d WHERE d.id = u.id
    RETURNING u.id::text AS id, u.type"""


async def _write_types(
    transaction: Transaction, people: Iterable[Person], users: Iterable[User], stated: Iterable[StatedPerson]
) -> dict[str, str]:
    """Sets the types of accounts as somebody said with the API or in the people file; returns the changed, by user.

    What the API was told is of one account and the file is of a person: the API wins.
    """
    types_of = {one.email: one.type for one in stated}
    by_id = {user.id: user for user in users}
    wanted: dict[str, tuple[str, str] | None] = {}
    for person in people:
        of_file = next((type_ for email in person.stated if (type_ := types_of.get(email))), None)
        of_accounts = _said_by_api(by_id[user_id] for user_id in person.users)
        for user_id in person.users:
            user = by_id[user_id]
            of_api = of_accounts.get(user.account_id or user.source_id)
            wanted[user.source_id] = (of_api, "api") if of_api else (of_file, "file") if of_file else None
    said = {user.source_id: (user.said_type, user.said_by) for user in by_id.values()}
    changed = [(source_id, *want) for source_id, want in wanted.items() if want and want != said[source_id]]
    if changed:
        await transaction.execute(_SET_TYPES, _columns(("users", "types", "said_by"), changed))
    unset = [source_id for source_id, want in wanted.items() if want is None and said[source_id] != (None, None)]
    if unset:
        await transaction.execute(_UNSET_TYPES, [unset])
    retyped = {row.id: row.type for row in await transaction.rows(_FOLLOW_TYPES)}
    transaction.count("bitbucket_users", updated=len(retyped))
    return retyped


def _said_by_api(users: Iterable[User]) -> dict[str, str]:
    """What `users.setUserStatuses` said, by account: an account may come back with another uuid."""
    said = {(user.account_id or user.source_id): user for user in users if user.said_by == "api"}
    return {account: user.said_type for account, user in said.items() if user.said_type}


_DROP_IDENTIFIERS = "DELETE FROM dx_user_identifiers WHERE kind = 'email' AND value = ANY(%s)"
_SET_IDENTIFIERS = """
    INSERT INTO dx_user_identifiers (kind, value, user_id)
    SELECT 'email', new.value, new.person FROM unnest(%(values)s::text[], %(people)s::bigint[]) AS new (value, person)
    ORDER BY 2
    ON CONFLICT (kind, value) DO UPDATE SET user_id = EXCLUDED.user_id"""


async def _write_identifiers(transaction: Transaction, joined: Joined) -> None:
    stored = {row.value: row.user_id for row in await transaction.rows(_IDENTIFIERS)}
    owners = {email: joined.people[position].number for email, position in joined.owners.items()}
    gone = sorted(stored.keys() - owners.keys())
    if gone:
        await transaction.execute(_DROP_IDENTIFIERS, [gone])
    changed = [(email, number) for email, number in owners.items() if stored.get(email) != number]
    if changed:
        await transaction.execute(_SET_IDENTIFIERS, _columns(("values", "people"), changed))
    inserted = sum(email not in stored for email, _ in changed)
    transaction.count("dx_user_identifiers", inserted=inserted, updated=len(changed) - inserted + len(gone))


class _Known(NamedTuple):
    """What rows of `dx_users` are derived from; `types` by id of the user, `teams` are numbers by path."""

    users: Iterable[User]
    stated: Iterable[StatedPerson]
    addresses: Iterable[Address]
    types: Mapping[str, str]
    teams: Mapping[str, int]


class _Described:
    """The people as rows of `dx_users`."""

    def __init__(self, known: _Known, joined: Joined) -> None:
        self._users = {user.id: user for user in known.users}
        self._stated = {one.email: one for one in known.stated}
        self._types, self._teams = known.types, known.teams
        owned: defaultdict[str, list[tuple[bool, str]]] = defaultdict(list)
        for address in known.addresses:
            if address.email in joined.owners:
                owned[address.user_id].append((not address.verified, address.email))
        self._owned = owned
        self._owners = {f"{_EMAIL}{email}": person.number for person in joined.people for email in person.stated}
        for person in joined.people:
            for user_id in person.users:
                user = self._users[user_id]
                self._owners[f"user:{user.source_id}"] = person.number
                self._owners[f"account:{user.account_id}"] = person.number

    def owner(self, person: PersonRow) -> int | None:
        """Whose the account or address is that this person was made for, if it is another one's."""
        number = self._owners.get(person.source_id)
        return None if number == person.id else number

    def is_there(self, person: Person) -> bool:
        """Whether the person has an account, or the file names them."""
        return bool(person.users or self._said(person))

    def _said(self, person: Person) -> list[StatedPerson]:
        return [self._stated[email] for email in person.stated if email in self._stated]

    def row(self, person: Person, stored: PersonRow | None) -> PersonRow:
        """The person's row. Members come first, then people, then all other accounts."""
        users = sorted(
            (self._users[user_id] for user_id in person.users),
            key=lambda user: (not user.active, self._types[user.id] != HUMAN, user.source_id, user.id),
        )
        said = self._said(person)
        kind = next((one.type for one in said if one.type), None) or self._type(users)
        return PersonRow(
            id=person.number or 0,
            source_id=stored.source_id if stored else person.home,
            team_id=next((self._teams.get(one.team) for one in said if one.team), None),
            name=next((one.name for one in said if one.name), None)
            or next((user.name for user in users if user.name), None),
            email=next((one.email for one in said), None) or self._email(users),
            developer=kind == HUMAN,
            type=kind,
            tz=next((one.tz for one in said if one.tz), None),
            deleted_at=_left_at(users),
            merged_into_id=None,
        )

    def _type(self, users: Sequence[User]) -> str:
        types = [self._types[user.id] for user in users]
        return HUMAN if HUMAN in types or not types else types[0]

    def _email(self, users: Sequence[User]) -> str | None:
        """An address as Jira returns it now, else one that it returned before, else one of commits."""
        current = next((user.email.strip().lower() for user in users if user.email and user.email.strip()), None)
        owned = min((one for user in users for one in self._owned.get(user.id, ())), default=None)
        return current or (owned[1] if owned else None)


def _left_at(users: Sequence[User]) -> datetime | None:
    """When the last of the memberships ended; None for members, and for those who never were one."""
    if any(user.active for user in users):
        return None
    return max((user.left_at for user in users if user.left_at), default=None)


_SET_PEOPLE = """
    UPDATE dx_users u SET (team_id, name, email, developer, type, tz, deleted_at, merged_into_id) =
           ROW(new.team_id, new.name, new.email, new.developer, new.type, new.tz, new.deleted_at, new.merged_into_id)
    FROM unnest(%(id)s::bigint[], %(team_id)s::bigint[], %(name)s::text[], %(email)s::text[], %(developer)s::boolean[],
                %(type)s::text[], %(tz)s::text[], %(deleted_at)s::timestamptz[], %(merged_into_id)s::bigint[])
         AS new (id, team_id, name, email, developer, type, tz, deleted_at, merged_into_id)
    WHERE new.id = u.id"""
_COUNT_CONTRIBUTORS = """
    UPDATE dx_teams t SET contributors = counted.people
    FROM (SELECT t.id, count(u.id)::integer AS people
          FROM dx_teams t LEFT JOIN dx_users u ON u.team_id = t.id AND u.deleted_at IS NULL GROUP BY t.id) counted
    WHERE counted.id = t.id AND t.contributors IS DISTINCT FROM counted.people"""


async def _write_people(
    transaction: Transaction,
    people: Sequence[Person],
    stored: Mapping[int, PersonRow],
    described: _Described,
    now: datetime,
) -> bool:
    """Updates `dx_users`; returns whether anything differed.

    A person without an account, whom no file names, stays as a deleted row.
    """
    wanted = {
        person.number: described.row(person, stored.get(person.number or 0))
        for person in people
        if described.is_there(person)
    }
    for number, row in stored.items():
        if number not in wanted:
            into = described.owner(row)
            gone = row._replace(team_id=None, deleted_at=row.deleted_at or now, merged_into_id=into)
            wanted[number] = gone._replace(email=None) if into else gone
    changed = [row for number, row in wanted.items() if number is not None and stored.get(number) != row]
    if changed:
        names = [name for name in PersonRow._fields if name != "source_id"]
        values = [tuple(getattr(row, name) for name in names) for row in changed]
        await transaction.execute(_SET_PEOPLE, _columns(names, values))
        new = sum(row.id not in stored for row in changed)
        transaction.count("dx_users", updated=len(changed) - new)
    return bool(changed)


def _columns(names: Iterable[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Rows as one list for each column: parameters of `unnest`."""
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
