"""Writes the parts of `docs/` that the code determines, between `<!-- generated:… -->` marks: `make docs`.

Around the marks the pages are written by hand. `test_documentation.py` fails when a page differs from what this gives.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from dx_dagster.cli.app import app
from dx_dagster.settings import Settings
from dx_dagster.warehouse import schema
from dx_dagster_tests.bad_input.mistakes import MISTAKES

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("tables.md", "commands.md", "configuration.md", "troubleshooting.md")

_PART = re.compile(r"(<!-- generated:(\w+) -->\n)(.*?)(<!-- /generated:\2 -->)", re.DOTALL)
_SETTING = re.compile(r"^\| `(\w+)` \|(?:.*\|)? ([^|]+) \|$", re.MULTILINE)
_PLACE = re.compile(r"\{\w+\}")
_PROGRAM = "dx-dagster"
_EXAMPLE = "Example: "


def renewed(text: str) -> str:
    """The page with its generated parts as the code gives them now."""
    return _PART.sub(lambda part: part[1] + _GENERATORS[part[2]](part[3]) + part[4], text)


def _grid(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (names, ["---"] * len(names), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _tables(*, imported: bool) -> list[Table]:
    """Imported tables in the order of their declaration, the others by name."""
    names = sorted(f"{schema.__name__}.{one.name}" for one in pkgutil.iter_modules(schema.__path__))
    every = {value.name: value for name in names for value in _tables_of(name)}
    found = [table for name, table in every.items() if name.startswith("bitbucket_") == imported]
    return found if imported else sorted(found, key=lambda table: str(table.name))


def _tables_of(module: str) -> Iterator[Table]:
    return (value for value in vars(importlib.import_module(module)).values() if isinstance(value, Table))


def _described(tables: Sequence[Table]) -> str:
    index = _grid(("table", "rows"), [(f"[`{table.name}`](#{table.name})", table.comment or "") for table in tables])
    return index + "".join(f"\n### {table.name}\n\n{table.comment}.\n\n{_columns(table)}" for table in tables)


def _columns(table: Table) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    rows = []
    for column in table.columns:
        kind = column.type.compile(dialect=dialect).lower()
        kind = kind.replace("timestamp with time zone", "timestamptz")
        required = ", key" if column.primary_key else "" if column.nullable else ", not null"
        rows.append((f"`{column.name}`", kind + required, (column.comment or "").replace("|", "\\|")))
    return _grid(("column", "type", "meaning"), rows)


def _mistakes(_: str) -> str:
    rows = [(one.what, f"`{_PLACE.sub('…', one.command)}`", _code(one.sees)) for one in MISTAKES]
    return _grid(
        ("mistake", "command", "what you see"), [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    )


def _code(text: str) -> str:
    """A code span; the text may hold backticks itself."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _settings(before: str) -> str:
    """The table's rows stay in their order and keep their meaning; default and values are the code's."""
    fields = {str(field.alias): field for field in Settings.model_fields.values()}
    rows = [
        (f"`{name}`", _default(fields[name]), _values(fields[name]), meaning)
        for name, meaning in _SETTING.findall(before)
    ]
    return _grid(("variable", "default", "values", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    if field.default is None:
        return "unset"
    value = field.default
    if isinstance(value, ByteSize):
        return f"`{value // 1_000_000}MB`"
    return f"`{int(value) if isinstance(value, float) and value.is_integer() else value}`"


def _values(field: FieldInfo) -> str:
    kinds = [kind for kind in _alternatives(field.annotation) if kind is not type(None)]
    names = {int: "integer", float: "number", Path: "folder", ByteSize: "size", SecretStr: "secret", str: "text"}
    words = names.get(kinds[0], " or ".join(f"`{kind}`" for kind in kinds)) if kinds else "text"
    return words + "".join(_bounds(field))


def _alternatives(kind: Any) -> Iterator[Any]:
    """The types of a union, and the values of a literal."""
    if get_origin(kind) in {Union, UnionType, Literal}:
        for one in get_args(kind):
            yield from _alternatives(one)
    else:
        yield kind


def _bounds(field: FieldInfo) -> Iterator[str]:
    words = {"gt": "above", "ge": "at least", "le": "at most"}
    for mark in field.metadata:
        for name, word in words.items():
            if (bound := getattr(mark, name, None)) is not None:
                size = f"{bound // 1_000_000}MB" if field.annotation is ByteSize else f"{bound:.15g}"
                yield f", {word} {size}"


def _commands(_: str) -> str:
    return "".join(_group(typer.main.get_command(app), (_PROGRAM,))).removeprefix("\n")


def _group(group: Any, path: Sequence[str]) -> Iterator[str]:
    for name, command in group.commands.items():
        level = "#" * (len(path) + 1)
        yield f"\n{level} {' '.join((*path[1:], name))}\n\n"
        yield from _help(command.help or "")
        if hasattr(command, "commands"):
            yield from _group(command, (*path, name))
        else:
            yield from _usage(command, (*path, name))


def _help(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        words = " ".join(paragraph.split())
        if words.startswith(_EXAMPLE):
            yield f"```sh\n{words.removeprefix(_EXAMPLE)}\n```\n\n"
        else:
            yield f"{words}\n\n"


def _usage(command: Any, path: Sequence[str]) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    words = [*path, *(["[OPTIONS]"] if options else []), *(one.metavar for one in arguments)]
    yield f"Usage: `{' '.join(words)}`\n"
    rows = [(f"`{one.metavar}`", "", one.help or "") for one in arguments]
    rows += [(f"`{_option(one)}`", _default_of(one), one.help or "") for one in options]
    if rows:
        yield "\n" + _grid(("argument or option", "default", "meaning"), rows)


def _option(one: Any) -> str:
    """The option with its value's type, unless it is a switch."""
    kind = next(kind for kind in _alternatives(one.type_descriptor.annotation) if kind is not type(None))
    if kind is bool:
        return str(one.opts[0])
    value = "\\|".join(str(choice.value) for choice in kind) if issubclass(kind, Enum) else one.name.strip("_").upper()
    return f"{one.opts[0]} {value}"


def _default_of(one: Any) -> str:
    if one.default is None or one.default is False:
        return ""
    return f"`{getattr(one.default, 'value', one.default)}`"


_GENERATORS: dict[str, Callable[[str], str]] = {
    "imported_tables": lambda _: _described(_tables(imported=True)),
    "own_tables": lambda _: _described(_tables(imported=False)),
    "commands": _commands,
    "mistakes": _mistakes,
    "settings": _settings,
}


def main() -> None:
    for name in PAGES:
        page = DOCS / name
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"docs/{name} is written anew.\n")


if __name__ == "__main__":
    main()
