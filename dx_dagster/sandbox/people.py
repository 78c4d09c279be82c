# ruff: noqa: PLR2004 - the numbers are chances: a name for each would say nothing more
"""The accounts of a made-up workspace: members, outsiders, bots and former members."""

import unicodedata
from collections.abc import Container
from dataclasses import dataclass
from datetime import timedelta, timezone
from random import Random

from dx_dagster.sandbox.vocabulary import FAMILY_NAMES, GIVEN_NAMES, pick

OFFSETS = (0, 0, 60, 120, -300, 330, -480, 540)


def random_uuid(rng: Random) -> str:
    """A version 4 UUID in braces, as the API writes it."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{{{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}}}"


@dataclass(slots=True, eq=False)
class User:
    """An account. `kind` is the API's `type`: user, app_user (access tokens), AppUser or team; bots have no nickname.

    Attributes:
        hides_email: from Jira; Bitbucket shows nobody's.
    """

    uuid: str
    account_id: str | None
    display_name: str
    nickname: str | None
    kind: str
    email: str
    zone: timezone
    hides_email: bool = False

    @property
    def shown_email(self) -> str | None:
        """The address as Jira shows it."""
        return None if self.hides_email or self.kind != "user" else self.email

    @property
    def signature(self) -> str:
        """The author of a commit."""
        return f"{self.display_name} <{self.email}>"


def _ascii(text: str) -> str:
    kept = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(c for c in kept.lower() if c.isalpha())


class People:
    """All accounts that may appear in the workspace. `version` grows with each change of a name or membership."""

    def __init__(self, rng: Random, workspace: str, members: int) -> None:
        self.version = 0
        self._workspace = workspace
        self.members: list[User] = [self.person(rng) for _ in range(members)]
        self.outsiders: list[User] = [self.person(rng) for _ in range(max(2, members // 8))]
        self.former: list[User] = [self._former(rng) for _ in range(2)]
        self.bots: list[User] = [
            self._bot(rng, "Renovate", "app_user"),
            self._bot(rng, "acme-ci-token", "app_user"),
            self._bot(rng, "Release Team", "team"),
        ]
        # Made by a chance of its own, so that it changes nothing else in the world of a seed.
        self.bots.append(self._bot(Random(self.bots[0].uuid), "Pull Request Reviewer", "AppUser"))
        self.left: list[User] = []

    @property
    def ai_reviewer(self) -> User:
        """The bot that reviews pull requests."""
        return self.bots[-1]

    @property
    def everybody(self) -> list[User]:
        return [*self.members, *self.left, *self.outsiders, *self.former, *self.bots]

    def person(self, rng: Random) -> User:
        given, family = pick(rng, GIVEN_NAMES), pick(rng, FAMILY_NAMES)
        number = rng.getrandbits(24)
        uuid = random_uuid(rng)
        return User(
            uuid=uuid,
            account_id=f"557058:{random_uuid(rng)[1:-1]}" if rng.random() < 0.5 else f"{rng.getrandbits(96):024x}",
            display_name=f"{given} {family}",
            nickname=f"{_ascii(given)}.{_ascii(family)}" if rng.random() < 0.7 else f"{given} {family}",
            kind="user",
            email=f"{_ascii(given)}.{_ascii(family)}.{number:x}@{self._workspace}.example",
            zone=timezone(timedelta(minutes=OFFSETS[int(rng.random() * len(OFFSETS))])),
            hides_email=uuid[1] in "012",
        )

    def _former(self, rng: Random) -> User:
        """A deleted account: its name is gone, its identifiers stay."""
        user = self.person(rng)
        user.display_name = user.nickname = "Former user"
        user.hides_email = True
        return user

    def _bot(self, rng: Random, name: str, kind: str) -> User:
        user = self.person(rng)
        user.display_name, user.nickname, user.kind = name, None, kind
        user.email = f"{_ascii(name)}@bots.{self._workspace}.example"
        if kind == "team":
            user.account_id = None
        return user

    def member(self, rng: Random, but_not: Container[User | None] = ()) -> User:
        """A random member, mostly one of the first. Tiny workspaces may have nobody but those of `but_not`."""
        for _ in range(8):
            user = self.members[int(rng.random() ** 1.7 * len(self.members))]
            if user not in but_not:
                return user
        return next((user for user in self.members + self.outsiders if user not in but_not), self.members[0])

    def author(self, rng: Random) -> User | None:
        """A random author of a pull request, mostly a member; None for an account that was deleted without a trace."""
        chance = rng.random()
        if chance < 0.88:
            return self.member(rng)
        if chance < 0.93:
            return self.bots[int(rng.random() * len(self.bots))]
        if chance < 0.97:
            return self.outsiders[int(rng.random() * len(self.outsiders))]
        return self.former[int(rng.random() * len(self.former))] if chance < 0.985 else None

    def join(self, user: User) -> None:
        """Adds a new person, a former member, or a member of another workspace."""
        if user in self.left:
            self.left.remove(user)
        self.members.append(user)
        self.version += 1

    def leave(self, user: User) -> None:
        """Ends a membership; everything by that person stays, under the same name."""
        self.members.remove(user)
        self.left.append(user)
        self.version += 1
