"""The query language of `q`: comparisons, lists, AND, OR and parentheses."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

Getter = Callable[[Any], Any]
Predicate = Callable[[Any], bool]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<op><=|>=|!=|!~|=|~|<|>|\(|\)|,)
    |"(?P<text>(?:[^"\\]|\\.)*)"
    |(?P<time>\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?)
    |(?P<number>-?\d+(?:\.\d+)?)
    |(?P<word>[A-Za-z_][\w.]*))""",
    re.VERBOSE,
)
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": eq, "!=": ne, ">": gt, ">=": ge, "<": lt, "<=": le,
}  # fmt: skip
_WORDS: Final[Mapping[str, object]] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class All:
    """Several conditions, joined by AND."""

    parts: Sequence[Predicate]

    def __call__(self, thing: Any) -> bool:
        return all(part(thing) for part in self.parts)


@dataclass(frozen=True)
class Comparison:
    """`name operator value`; a class and no closure, so that `floor` can look inside."""

    name: str
    operator: str
    value: Any
    test: Predicate

    def __call__(self, thing: Any) -> bool:
        return self.test(thing)


def floor(predicate: Predicate, name: str) -> int | None:
    """The number that `name` must exceed: a keyset page skips the rows before it."""
    parts = predicate.parts if isinstance(predicate, All) else [predicate]
    bounds = [p.value for p in parts if isinstance(p, Comparison) and p.name == name and p.operator == ">"]
    return max((bound for bound in bounds if isinstance(bound, int)), default=None)


class QueryError(Exception):
    """An invalid `q`; the API answers 400."""


def compile_query(q: str, fields: Mapping[str, Getter]) -> Predicate:
    """Compiles a query to a predicate over things with these `fields`."""
    parser = _Parser(q, fields)
    predicate = parser.either()
    if parser.tokens:
        raise QueryError(f"Unexpected {parser.tokens[0][1]!r}")
    return predicate


def _tokens(q: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(q.rstrip()):
        match = _TOKEN.match(q, position)
        if match is None:
            raise QueryError(f"Cannot read {q[position:]!r}")
        kind = match.lastgroup or ""
        found.append((kind, match[kind]))
        position = match.end()
    return found


class _Parser:
    def __init__(self, q: str, fields: Mapping[str, Getter]) -> None:
        self.tokens = _tokens(q)
        self.fields = fields

    def _next(self) -> tuple[str, str]:
        if not self.tokens:
            raise QueryError("The query ends too early")
        return self.tokens.pop(0)

    def _word(self, word: str) -> bool:
        """Takes a keyword or sign if it comes next."""
        if self.tokens and self.tokens[0][0] in {"word", "op"} and self.tokens[0][1].upper() == word:
            self.tokens.pop(0)
            return True
        return False

    def _expect(self, word: str) -> None:
        if not self._word(word):
            raise QueryError(f"{word} is missing")

    def either(self) -> Predicate:
        parts = [self._both()]
        while self._word("OR"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda thing: any(part(thing) for part in parts)

    def _both(self) -> Predicate:
        parts = [self._one()]
        while self._word("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(parts)

    def _one(self) -> Predicate:
        if self._word("("):
            inside = self.either()
            self._expect(")")
            return inside
        kind, name = self._next()
        if kind != "word" or name not in self.fields:
            raise QueryError(f"Unknown field {name!r}")
        getter = self.fields[name]
        if self._word("NOT"):
            self._expect("IN")
            unwanted = self._list()
            return lambda thing: getter(thing) not in unwanted
        if self._word("IN"):
            wanted = self._list()
            return lambda thing: getter(thing) in wanted
        kind, operator = self._next()
        if kind != "op":
            raise QueryError(f"{operator!r} is no operator")
        value = self._value()
        return Comparison(name, operator, value, _comparison(getter, operator, value))

    def _list(self) -> list[Any]:
        self._expect("(")
        values = [self._value()]
        while self._word(","):
            values.append(self._value())
        self._expect(")")
        return values

    def _value(self) -> Any:
        kind, value = self._next()
        if kind == "text":
            return value.replace('\\"', '"').replace("\\\\", "\\")
        if kind == "number":
            return float(value) if "." in value else int(value)
        if kind == "time":
            return value
        if kind == "word" and value.lower() in _WORDS:
            return _WORDS[value.lower()]
        raise QueryError(f"{value!r} is no value")


def _comparison(getter: Getter, operator: str, value: Any) -> Predicate:
    if operator in {"~", "!~"}:
        part, wanted = str(value).lower(), operator == "~"
        return lambda thing: (part in str(getter(thing) or "").lower()) is wanted
    if operator not in _COMPARISONS:
        raise QueryError(f"{operator!r} is no operator")
    compare, moment = _COMPARISONS[operator], _moment(value)

    def test(thing: Any) -> bool:
        mine = getter(thing)
        if mine is None or value is None:
            return operator in {"=", "!="} and compare(mine, value)
        if isinstance(mine, datetime):
            if moment is None:
                raise QueryError(f"{value!r} is no date")
            return compare(mine, moment)
        if isinstance(mine, str) is not isinstance(value, str):
            raise QueryError(f"{value!r} does not compare with this field")
        return compare(mine, value)

    return test


def _moment(value: Any) -> datetime | None:
    """ISO 8601, with quotes or without; a time without an offset is UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
