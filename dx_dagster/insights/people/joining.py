"""Joins accounts into people, from evidence alone. Pure: the same evidence gives the same people, in any order.

The evidence only grows: an address that an account was ever seen with stays evidence. So a person does not fall apart
when Jira hides an address. New evidence may contradict a join: an address that turns out to be shared joins nobody.

In this order:

1. Users with the same Atlassian account id, or the same uuid, are one account, whatever the workspace.
2. What somebody said: a linked account belongs to the person named, a separated one to nobody else.
3. Verified addresses and those of the people file.
4. Addresses of commits, each of which Bitbucket links to one account only.

Steps 3 and 4 join no bots with people, and never two people whom somebody named.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Account(NamedTuple):
    """A user of one workspace.

    Attributes:
        id: id of the row.
        bot: whether it is a bot's.
        linked_to: number of the person whom somebody linked it to.
        linked_at: when; the last link counts where users of one account have several.
        separate: whether somebody said that it is nobody else's.
    """

    id: str
    source_id: str
    account_id: str | None
    bot: bool
    linked_to: int | None = None
    linked_at: float = 0
    separate: bool = False


class Address(NamedTuple):
    """An e-mail address that an account was seen with."""

    user_id: str
    email: str
    verified: bool
    of_commits: bool


class Stated(NamedTuple):
    """A person of the people file, or one who was made for an address of it once."""

    email: str
    bot: bool


@dataclass(frozen=True)
class Evidence:
    """All that is known.

    Attributes:
        homes: the account or address that each person was made for, by number of the person.
    """

    accounts: Sequence[Account]
    addresses: Iterable[Address] = ()
    stated: Sequence[Stated] = ()
    homes: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Person:
    """One person.

    Attributes:
        number: the lowest of those made for accounts of this person; None for a new person.
        home: the account or address that a new person is made for.
        users: ids of users, each with the reason why it belongs to the person.
        stated: addresses of the people file.
    """

    number: int | None
    home: str
    users: dict[str, str] = field(default_factory=dict)
    stated: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Joined:
    """All people, and for each address the position of the one person whose it is."""

    people: Sequence[Person]
    owners: Mapping[str, int]


_Node = tuple[str, str | int]
"""An account by its name, a person by number, a person of the file by address; or what users have in common."""


class _Groups:
    """Disjoint sets, each with the people whom somebody named in it."""

    def __init__(self) -> None:
        self._above: dict[_Node, _Node] = {}
        self._named: dict[_Node, set[int]] = {}

    def find(self, node: _Node) -> _Node:
        root = node
        while (above := self._above.get(root, root)) != root:
            root = above
        while node != root:
            self._above[node], node = root, self._above[node]
        return root

    def join(self, nodes: Iterable[_Node]) -> None:
        first, *others = map(self.find, nodes)
        for other in others:
            if other != first:
                self._above[other] = first
                if named := self._named.pop(other, None):
                    self._named.setdefault(first, set()).update(named)

    def name(self, node: _Node, person: int) -> None:
        self._named.setdefault(self.find(node), set()).add(person)

    def contradict(self, nodes: Iterable[_Node]) -> bool:
        """Whether somebody named different people in the groups of these nodes."""
        return len({person for root in set(map(self.find, nodes)) for person in self._named.get(root, ())}) > 1


def home_of(account: Account) -> str:
    """The text by which a person is known who is made for this account."""
    return f"account:{account.account_id}" if account.account_id else f"user:{account.source_id}"


def join(evidence: Evidence) -> Joined:
    """Joins accounts into people."""
    accounts = _Accounts(evidence.accounts)
    groups = _Groups()
    _follow_hands(groups, accounts, evidence)
    holders = _Holders(accounts, evidence)
    reasons = _Joining(groups, accounts, holders).reasons
    return _people(groups, accounts, evidence, holders, reasons)


class _Accounts:
    """Users grouped by account. An account is named by its first user's id.

    Attributes:
        of_user: name of the account, by id of a user.
        users: users in order of their ids, by name of the account.
        of_home: name of the account, by home of a person made for it.
        linked_to: number of the person whom somebody linked it to, by name.
    """

    def __init__(self, accounts: Sequence[Account]) -> None:
        ordered = sorted(accounts)
        groups = _Groups()
        for account in ordered:
            same = [("user", account.id), ("source", account.source_id)]
            groups.join([*same, ("account", account.account_id)] if account.account_id else same)
        by_root: defaultdict[_Node, list[Account]] = defaultdict(list)
        for account in ordered:
            by_root[groups.find(("user", account.id))].append(account)
        self.users = {users[0].id: users for users in by_root.values()}
        self.of_user = {user.id: name for name, users in self.users.items() for user in users}
        self.of_home: dict[str, str] = {}
        self.linked_to: dict[str, int] = {}
        self.separate: set[str] = set()
        self.bots: set[str] = set()
        for name, users in self.users.items():
            for user in users:
                self.of_home[f"user:{user.source_id}"] = name
                if user.account_id:
                    self.of_home[f"account:{user.account_id}"] = name
            said = [user for user in users if user.linked_to is not None or user.separate]
            if said:
                last = max(said, key=lambda user: (user.linked_at, user.id))
                if last.linked_to is not None:
                    self.linked_to[name] = last.linked_to
                else:
                    self.separate.add(name)
            if any(user.bot for user in users):
                self.bots.add(name)


def _follow_hands(groups: _Groups, accounts: _Accounts, evidence: Evidence) -> None:
    """Joins accounts with the people made for them, or with those whom somebody linked them to."""
    stated = {f"email:{one.email}": ("stated", one.email) for one in evidence.stated}
    for number, home in evidence.homes.items():
        account = accounts.of_home.get(home)
        if account is not None and account not in accounts.linked_to:
            groups.join([("account", account), ("person", number)])
        elif home in stated:
            groups.join([stated[home], ("person", number)])
    for account, number in accounts.linked_to.items():
        groups.join([("account", account), ("person", number)])
    for number in accounts.linked_to.values():
        groups.name(("person", number), number)


class _Holders:
    """Who holds each address: accounts by their names, and people of the file."""

    def __init__(self, accounts: _Accounts, evidence: Evidence) -> None:
        self.verified: defaultdict[str, set[str]] = defaultdict(set)
        self.of_commits: defaultdict[str, set[str]] = defaultdict(set)
        self.stated = {one.email: one for one in evidence.stated}
        for address in evidence.addresses:
            account = accounts.of_user.get(address.user_id)
            if account is not None:
                if address.verified:
                    self.verified[address.email].add(account)
                if address.of_commits:
                    self.of_commits[address.email].add(account)


class _Joining:
    """Joins accounts that an address shows to be one person's.

    Attributes:
        reasons: why an account was joined, by its name.
    """

    def __init__(self, groups: _Groups, accounts: _Accounts, holders: _Holders) -> None:
        self._groups, self._accounts, self._holders = groups, accounts, holders
        self.reasons: dict[str, str] = {}
        for email in sorted(holders.verified.keys() & holders.stated.keys() | _several(holders.verified)):
            self._join(self._holders_of(email)[0], "email")
        # Decided before any is joined, so that their order means nothing. A shared address is such as that of a build.
        shared = {email for email, linked in holders.of_commits.items() if len(linked) > 1 and _apart(groups, linked)}
        for email in sorted(holders.of_commits.keys() - shared):
            self._join_by_commits(email)

    def _join_by_commits(self, email: str) -> None:
        by_commits = self._joinable(self._holders.of_commits[email])
        others, has_bot = self._holders_of(email)
        has_bot |= any(account in self._accounts.bots for account in by_commits)
        if by_commits and others and (not has_bot or others == [("stated", email)]):
            self._join([*others, *(("account", account) for account in by_commits)], "commit_email")

    def _holders_of(self, email: str) -> tuple[list[_Node], bool]:
        """Those whom a verified address joins, and whether a bot holds it. A bot is joined only if the file says so."""
        named = self._joinable(self._holders.verified.get(email, ()))
        bots = [account for account in named if account in self._accounts.bots]
        stated = self._holders.stated.get(email)
        if stated is None:
            return ([] if bots else [("account", account) for account in named]), bool(bots)
        if len(bots) < len(named):  # of people and bots with one address, those that the file means
            named = bots if stated.bot and bots else [account for account in named if account not in bots]
        return [("stated", email), *(("account", account) for account in named)], bool(bots)

    def _joinable(self, accounts: Iterable[str]) -> list[str]:
        return [account for account in sorted(accounts) if account not in self._accounts.separate]

    def _join(self, nodes: Sequence[_Node], reason: str) -> None:
        if len(nodes) > 1 and not self._groups.contradict(nodes):
            self._groups.join(nodes)
            for kind, name in nodes:
                if kind == "account":
                    self.reasons.setdefault(str(name), reason)


def _apart(groups: _Groups, accounts: Iterable[str]) -> bool:
    """Whether the accounts are more than one person's."""
    return len({groups.find(("account", account)) for account in accounts}) > 1


def _several(holders: Mapping[str, Collection[str]]) -> set[str]:
    return {email for email, accounts in holders.items() if len(accounts) > 1}


def _people(
    groups: _Groups, accounts: _Accounts, evidence: Evidence, holders: _Holders, reasons: Mapping[str, str]
) -> Joined:
    numbers: dict[_Node, int] = {}
    for number in sorted({*evidence.homes, *accounts.linked_to.values()}):
        numbers.setdefault(groups.find(("person", number)), number)
    by_root: dict[_Node, Person] = {}

    def person_of(node: _Node, home: str) -> Person:
        root = groups.find(node)
        if root not in by_root:
            by_root[root] = Person(numbers.get(root), home)
        return by_root[root]

    for name, users in accounts.users.items():
        person = person_of(("account", name), home_of(users[0]))
        for user in users:
            person.users[user.id] = _reason(accounts, reasons, name, user, users)
    for email in holders.stated:
        person_of(("stated", email), f"email:{email}").stated.append(email)
    positions = {root: position for position, root in enumerate(by_root)}
    owners: dict[str, int] = {}
    for email in {*holders.verified, *holders.stated, *holders.of_commits}:
        sure: list[_Node] = [("account", account) for account in holders.verified.get(email, ())]
        sure += [("stated", email)] if email in holders.stated else []
        held = sure or [("account", account) for account in holders.of_commits.get(email, ())]
        roots = {groups.find(node) for node in held}
        if len(roots) == 1:
            owners[email] = positions[roots.pop()]
    return Joined(list(by_root.values()), owners)


def _reason(accounts: _Accounts, reasons: Mapping[str, str], name: str, user: Account, same: Sequence[Account]) -> str:
    if name in accounts.linked_to:
        return "manual"
    if name in accounts.separate:
        return "alone"
    if any(other.id != user.id and other.account_id == user.account_id for other in same if user.account_id):
        return "account_id"
    if len(same) > 1:
        return "user_id"
    return reasons.get(name, "alone")
