"""Which repositories of a workspace are imported, as somebody has said it by patterns.

It is kept in the settings of the workspace's connection. The next sync applies it to `allowlisted` of the repositories.
Where nobody has said anything, that column is left alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

from psycopg.types.json import Jsonb

from dx_dagster.warehouse.database import Transaction

_SETTING = "repositories"
_PROJECT = "project:"
_EVERYTHING = "*"
_LONGEST_PATTERN = 255


class PatternError(ValueError):
    """The text is no pattern; the message says why."""


def pattern(given: str) -> str:
    """The pattern as it is stored.

    Raises:
        PatternError: it is none.
    """
    text = given.strip().lower()
    if not text or text == _PROJECT or len(text) > _LONGEST_PATTERN or not text.isprintable() or " " in text:
        raise PatternError(f"{given!r} is not a pattern. Examples are web-* and project:CORE.")
    if "/" in text:
        raise PatternError(f"{given!r} has a slash. A pattern is for names without the workspace, such as web-*.")
    return text


def matches(text: str, slug: str, project: str | None) -> bool:
    """Whether a stored pattern matches a repository."""
    if text.startswith(_PROJECT):
        return fnmatchcase((project or "").lower(), text.removeprefix(_PROJECT))
    return fnmatchcase(slug.lower(), text)


class Rule(NamedTuple):
    """A pattern over slugs, or over keys of projects after `project:`, and whether what it matches is imported."""

    include: bool
    pattern: str

    def matches(self, slug: str, project: str | None) -> bool:
        return matches(self.pattern, slug, project)


@dataclass(frozen=True)
class Choice:
    """Rules, of which the last one that matches a repository counts.

    Attributes:
        otherwise: whether a repository that no rule matches is imported.
    """

    otherwise: bool = True
    rules: Sequence[Rule] = field(default_factory=tuple)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self | None:
        """The choice in the settings of a connection; None where nobody has said anything."""
        return cls.read(settings[_SETTING]) if _SETTING in settings else None

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Self:
        rules = [Rule(sense == "include", text) for rule in stored["rules"] for sense, text in rule.items()]
        return cls(stored["otherwise"] == "included", rules)

    def shown(self) -> dict[str, Any]:
        """As it is stored, and as `Choice.read` reads it."""
        rules = [{"include" if rule.include else "exclude": rule.pattern} for rule in self.rules]
        return {"otherwise": "included" if self.otherwise else "excluded", "rules": rules}

    def and_now(self, patterns: Iterable[str], *, include: bool) -> "Choice":
        """The choice after somebody has included or excluded what these patterns match.

        The first rule of all says by itself what becomes of the others: who includes some means these alone.
        """
        new = [Rule(include, one) for one in dict.fromkeys(patterns)]
        named = {rule.pattern for rule in new}
        otherwise = not include if self == Choice() else self.otherwise
        rules = [rule for rule in self.rules if rule.pattern not in named] + new
        if _EVERYTHING in named:
            otherwise, rules = include, []
        while rules and rules[0].include is otherwise:  # says nothing new
            rules.pop(0)
        return Choice(otherwise, tuple(rules))

    def deciding(self, slug: str, project: str | None) -> Rule | None:
        """The rule that decides about a repository; None where no rule matches it."""
        return next((rule for rule in reversed(self.rules) if rule.matches(slug, project)), None)

    def imports(self, slug: str, project: str | None) -> bool:
        rule = self.deciding(slug, project)
        return self.otherwise if rule is None else rule.include


class Choosable(NamedTuple):
    """A stored repository of a workspace."""

    id: str
    slug: str
    project: str | None
    allowlisted: bool
    refusal: str | None


async def change(transaction: Transaction, connection_id: int, patterns: Iterable[str], *, include: bool) -> None:
    """Stores that what the patterns match is included or excluded from the next sync on."""
    row = await transaction.row("SELECT settings FROM connections WHERE id = %s FOR UPDATE", [connection_id])
    chosen = (Choice.of(row.settings) or Choice()).and_now(patterns, include=include)
    await transaction.execute(
        "UPDATE connections SET settings = settings || %s, updated_at = now() WHERE id = %s",
        [Jsonb({_SETTING: chosen.shown()}), connection_id],
    )


async def stored(transaction: Transaction, workspace: str) -> list[Choosable]:
    """The workspace's repositories that are not deleted, by slug."""
    return await transaction.fetch(
        Choosable,
        """SELECT r.id::text AS id, COALESCE(NULLIF(r.slug, ''), r.source_id) AS slug, r.project_key AS project,
                  r.allowlisted, CASE WHEN NOT r.api_accessible THEN r.inaccessible_reason END AS refusal
           FROM bitbucket_repositories r JOIN bitbucket_workspaces w ON w.id = r.workspace_id
           WHERE lower(w.slug) = lower(%s) AND r.deleted_at IS NULL ORDER BY 2""",
        [workspace],
    )


async def apply(transaction: Transaction, workspace: str) -> None:
    """Lets imports have the repositories that were chosen.

    One that is included again is asked in any case: no delivery about it was applied meanwhile.
    """
    row = await transaction.row(
        "SELECT settings FROM connections "
        "WHERE lower(workspace) = lower(%s) AND type = 'bitbucket' AND deleted_at IS NULL",
        [workspace],
    )
    chosen = Choice.of(row.settings) if row else None
    if chosen is None:
        return
    known = await stored(transaction, workspace)
    for allowed in (True, False):
        changed = [
            one.id
            for one in known
            if one.allowlisted is not allowed and chosen.imports(one.slug, one.project) is allowed
        ]
        if changed:
            await transaction.execute(
                "UPDATE bitbucket_repositories SET allowlisted = %s WHERE id = ANY(%s::uuid[])", [allowed, changed]
            )
            await transaction.execute(
                "UPDATE sync_marks SET asked_at = NULL WHERE repository_id = ANY(%s::uuid[])", [changed]
            )
