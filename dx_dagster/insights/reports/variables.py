"""The variables in a tile's SQL, as parameters of the query.

The text is split as PostgreSQL's own scanner splits it. So a `$` within quotes, a comment, a quoted name or a body
between dollar signs is never taken for a variable, and nothing of a value becomes part of the text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

DATES = frozenset({"start_date", "end_date"})
IDS = frozenset({"repo_ids", "team_ids", "user_ids"})
# DX has these filters too. Nothing here has such ids, so nothing is ever chosen.
OTHER_IDS = frozenset({"service_ids", "tag_ids", "repo_group_ids"})
KNOWN = DATES | IDS | OTHER_IDS

Kind = Literal["space", "text", "name", "variable", "word", "sign"]

_START = r"A-Za-z_\x80-\U0010ffff"
_TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*+'(?:[ \t\f\v]*[\n\r][ \t\n\r\f\v]*'(?:[^'\\]|\\.|'')*+')*+
        |(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+')
    | (?P<name>(?:[uU]&)?"(?:[^"]|"")*+")
    | (?P<dollar>\$(?:[{_START}][{_START}0-9]*)?\$)
    | (?P<variable>\$[{_START}0-9][{_START}0-9]*)
    | (?P<word>[{_START}][{_START}0-9$]*|[0-9][0-9A-Za-z_.]*)
    | (?P<sign>(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?])+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_KNOWN_IN_TEXT = re.compile(rf"\$({'|'.join(sorted(KNOWN))})\b")
_QUERIES = frozenset({"select", "with", "values", "table", "("})
_TYPES_OF_LITERALS = frozenset({"date", "timestamp", "timestamptz"})
# After any expression: true, also where that is null.
_ALWAYS = " IS NOT NULL IS NOT NULL "
# DX puts a single id behind an operator, where we have an array.
_QUANTIFIERS = {"=": "ANY ", "<>": "ALL ", "!=": "ALL "}
_OPENING, _CLOSING = {"(": ")", "[": "]"}, frozenset(")]")


class TileError(Exception):
    """A tile cannot be shown; the message says why, in one sentence for a person."""


@dataclass(frozen=True)
class Values:
    """The values of variables by name.

    Attributes:
        dates: the first and the last moment, as PostgreSQL reads it.
        chosen: the ids that a filter leaves. A variable that is not there is not filtered.
        all: every id, for a variable that is not filtered and stands elsewhere than in a condition.
        defaults: of variables that the report declares itself.
    """

    dates: Mapping[str, str]
    chosen: Mapping[str, Sequence[int]]
    all: Mapping[str, Sequence[int]]
    defaults: Mapping[str, Sequence[str]]

    def known(self) -> frozenset[str]:
        return KNOWN | frozenset(self.defaults)

    def is_open(self, name: str) -> bool:
        """Whether the variable is a list, and every row is wanted."""
        if name in self.defaults:
            return not self.defaults[name]
        return name not in DATES and name not in self.chosen

    def ids(self, name: str) -> Sequence[Any]:
        if name in self.defaults:
            return self.defaults[name]
        return self.chosen.get(name, self.all.get(name, ()))


@dataclass(frozen=True)
class Query:
    """SQL for PostgreSQL with `$1`, `$2` and so on, and their values. Lines are those of the tile's SQL."""

    text: str
    parameters: list[Any]


@dataclass
class _Token:
    kind: Kind
    text: str
    line: int

    def says(self, *words: str) -> bool:
        return self.kind in {"word", "sign"} and self.text.lower() in words

    @property
    def variable(self) -> str:
        return self.text[1:] if self.kind == "variable" else ""


_NONE = _Token("space", "", 0)


def used(sql: str) -> frozenset[str]:
    """The names of the variables in the SQL."""
    try:
        return frozenset(token.variable for token in _tokens(sql) if token.variable)
    except TileError:
        return frozenset()


def bind(sql: str, values: Values) -> Query:
    """The query with the variables as parameters.

    Within `IN (…)` and `ARRAY[…]` a list is its elements, elsewhere an array. The conditions `x IN ($ids)`,
    `x NOT IN ($ids)`, `x = ANY($ids)` and `x = $ids` hold for every row where nothing is filtered, also for those
    without an id.

    Raises:
        TileError: the SQL is not one query, or a variable is unknown or stands where it is text.
    """
    return _Binder(sql, values).query()


class _Binder:
    """Binds the variables of one query."""

    def __init__(self, sql: str, values: Values) -> None:
        self._values = values
        self._tokens = list(_tokens(sql))
        self._solid = [place for place, token in enumerate(self._tokens) if token.kind != "space"]
        self._numbers: dict[tuple[str, int | None], int] = {}
        self._parameters: list[Any] = []

    def query(self) -> Query:
        self._require_one_query()
        for token in self._tokens:
            self._check(token)
        self._open_conditions()
        written: list[str] = []
        brackets: list[bool] = []  # whether each open one holds the elements of a list
        before = earlier = _NONE
        for token in self._tokens:
            if token.kind == "space":
                written.append(token.text)
                continue
            if token.says(*_OPENING):
                brackets.append(before.says("in") if token.text == "(" else before.says("array"))
            elif token.text in _CLOSING and brackets:
                brackets.pop()
            name = token.variable
            if name in DATES and before.says(*_TYPES_OF_LITERALS) and not earlier.says(":", ".", "as"):
                # DX puts a literal there, as in DATE '2026-01-31'; a parameter needs a cast.
                last = max(place for place, text in enumerate(written) if text == before.text)
                written[last] = ""
                written.append(f" ({self._date(name)}::{before.text}) ")
            elif name:
                value = self._value(name, in_list=bool(brackets) and brackets[-1])
                written.append(f" {_QUANTIFIERS.get(before.text, '') if value.endswith('[])') else ''}{value} ")
            else:
                written.append(token.text)
            earlier, before = before, token
        return Query("".join(written), self._parameters)

    def _require_one_query(self) -> None:
        while self._solid and self._tokens[self._solid[-1]].says(";"):
            self._tokens[self._solid.pop()] = _Token("space", " ", 0)
        if not self._solid:
            raise TileError("The tile's SQL is empty.")
        for place in self._solid:
            if self._tokens[place].says(";"):
                raise TileError(
                    f"The SQL has another statement after the semicolon in line {self._tokens[place].line}: a tile has "
                    "one SELECT."
                )
        first = self._tokens[self._solid[0]]
        if not first.says(*_QUERIES):
            raise TileError(f"The SQL begins with {first.text[:40]}: a tile has one SELECT, which changes nothing.")

    def _check(self, token: _Token) -> None:
        if token.kind == "text" and (found := _KNOWN_IN_TEXT.search(token.text)):
            line = token.line + token.text.count("\n", 0, found.start())
            raise TileError(
                f"The variable {found[0]} in line {line} stands within quotes, where it would be text: remove the "
                "quotes, since values are sent as parameters."
            )
        name = token.variable
        if name and name not in self._values.known():
            names = ", ".join(f"${one}" for one in sorted(self._values.known() - OTHER_IDS))
            raise TileError(f"The variable ${name[:60]} in line {token.line} is unknown: there are {names}.")

    def _open_conditions(self) -> None:
        """Replaces the conditions on variables that are not filtered by one that always holds."""
        place = 0
        while place < len(self._solid):
            first = self._at(place)
            start = place - 1 if first.says("in") and self._at(place - 1).says("not") else place
            end = None
            if first.says("in"):
                end = self._open_list(place + 1)
            elif first.says("=") and self._at(place + 1).says("any", "some"):
                end = self._open_list(place + 2)
            elif first.says("=") and self._is_open(self._at(place + 1)):
                end = place + 2
            if end is not None:
                self._replace(start, end)
                place = start
            place += 1

    def _open_list(self, place: int) -> int | None:
        """The place behind `($ids)` or `(ARRAY[$ids])`, each with or without a cast, where $ids is not filtered."""
        pattern: list[Callable[[_Token], bool]] = [lambda one: one.says("("), self._is_open, lambda one: one.says(")")]
        if self._at(place + 1).says("array"):
            pattern[1:2] = [
                lambda one: one.says("array"),
                lambda one: one.says("["),
                self._is_open,
                lambda one: one.says("]"),
            ]
        for wanted in pattern[:-1]:
            if not wanted(self._at(place)):
                return None
            place += 1
        if self._at(place).says(":") and self._at(place + 1).says(":"):
            place += 3
            while self._at(place).says("[", "]"):
                place += 1
        return place + 1 if pattern[-1](self._at(place)) else None

    def _is_open(self, token: _Token) -> bool:
        return bool(token.variable) and self._values.is_open(token.variable)

    def _at(self, place: int) -> _Token:
        return self._tokens[self._solid[place]] if 0 <= place < len(self._solid) else _NONE

    def _replace(self, start: int, end: int) -> None:
        for place in self._solid[start:end]:
            token = self._tokens[place]
            self._tokens[place] = _Token("space", "\n" * token.text.count("\n") or " ", token.line)
        self._tokens[self._solid[start]] = _Token("sign", _ALWAYS, 0)
        del self._solid[start + 1 : end]

    def _value(self, name: str, *, in_list: bool) -> str:
        if name in DATES:
            return self._date(name)
        ids = self._values.ids(name)
        kind = "" if name in self._values.defaults else "::bigint"
        if in_list:
            each = [f"({self._number(name, place, one)}{kind})" for place, one in enumerate(ids)]
            return ", ".join(each) or f"NULL{kind}"
        if name in self._values.defaults and len(ids) == 1:
            return self._number(name, 0, ids[0])
        return f"({self._number(name, None, list(ids))}{kind or '::text'}[])"

    def _date(self, name: str) -> str:
        return f"({self._number(name, None, self._values.dates[name])}::timestamptz)"

    def _number(self, name: str, place: int | None, value: Any) -> str:
        """The parameter's number; the same for the same value, unless PostgreSQL finds out its type at each place."""
        key = (name, place)
        if key not in self._numbers or name in self._values.defaults:
            self._parameters.append(value)
            self._numbers[key] = len(self._parameters)
        return f"${self._numbers[key]}"


def _tokens(sql: str) -> Iterator[_Token]:
    place, line = 0, 1
    while place < len(sql):
        match = _TOKEN.match(sql, place)
        assert match is not None  # noqa: S101 - the last alternative takes any character
        end, kind = match.end(), match.lastgroup
        if kind == "comment":
            end, kind = _end_of_comment(sql, end, line), "space"
        elif kind == "dollar":
            end = sql.find(match[0], end)
            if end < 0:
                raise TileError(f"The text that {match[0][:40]} opens in line {line} has no end.")
            end, kind = end + len(match[0]), "text"
        elif kind == "sign" and match[0] in {"'", '"'}:
            raise TileError(f"The quote {match[0]} that line {line} opens is not closed.")
        text = sql[place:end]
        yield _Token(_KINDS[str(kind)], text, line)
        line += text.count("\n")
        place = end


_KINDS: dict[str, Kind] = {
    "space": "space",
    "text": "text",
    "name": "name",
    "variable": "variable",
    "word": "word",
    "sign": "sign",
}


def _end_of_comment(sql: str, place: int, line: int) -> int:
    """PostgreSQL's comments nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, place)
        if edge is None:
            raise TileError(f"The comment that line {line} opens is not closed.")
        depth += 1 if edge[0] == "/*" else -1
        place = edge.end()
    return place
