"""Differences between the live schema and the declared one.

The version table says which migrations ran, not what the database holds: an index may have been dropped, a dump
restored in part, a migration changed after it ran. Every command compares, so this is one query of the catalog;
Alembic's comparison reflects each table by itself. Tables that are not declared are left alone.

A build that fills an empty table drops its indexes and makes them again. `pg_get_indexdef` would wait for its end, and
then know nothing of the dropped ones. So the definitions of plain indexes are put together from the catalog alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Column, Connection, PrimaryKeyConstraint, Table, UniqueConstraint, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateColumn, CreateIndex

from dx_dagster.warehouse.schema import metadata, type_name
from dx_dagster.warehouse.schema.triggers import FUNCTIONS, TRIGGERS, Trigger, create_function

_LIVE = text("""
    WITH ours AS (
        SELECT oid, relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname = ANY(:tables)
    )
    SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, atthasdef OR attidentity <> '', 'column'
    FROM ours JOIN pg_attribute ON attrelid = ours.oid WHERE attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT ours.relname, i.relname,
           CASE WHEN x.indpred IS NULL AND x.indexprs IS NULL AND keys.are_plain AND am.amname = 'btree'
                 AND x.indnatts = x.indnkeyatts AND NOT x.indnullsnotdistinct
                THEN concat('CREATE ', CASE WHEN x.indisunique THEN 'UNIQUE ' END, 'INDEX ', i.relname,
                            ' ON ', ours.relname, ' (', keys.columns, ')')
                ELSE pg_get_indexdef(x.indexrelid) END,
           x.indisvalid, NULL, 'index'
    FROM ours JOIN pg_index x ON x.indrelid = ours.oid
    JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am am ON am.oid = i.relam
    CROSS JOIN LATERAL (
        SELECT string_agg(a.attname, ', ' ORDER BY k.place) AS columns,
               bool_and(k.options = 0 AND o.opcdefault AND k.rule = a.attcollation) AS are_plain
        FROM unnest(x.indkey::int2[], x.indoption::int2[], x.indclass::oid[], x.indcollation::oid[])
             WITH ORDINALITY AS k (number, options, opclass, rule, place)
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
        JOIN pg_opclass o ON o.oid = k.opclass) keys
    UNION ALL
    SELECT relname, tgname, pg_get_triggerdef(t.oid), tgenabled IN ('O', 'A'), NULL, 'trigger'
    FROM ours JOIN pg_trigger t ON tgrelid = ours.oid WHERE NOT tgisinternal
    UNION ALL
    SELECT '', proname, prosrc, true, NULL, 'function'
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = ANY(:functions)""")
# Parts that PostgreSQL adds to a definition, and an index's storage parameters, which administrators may set.
_NOISE = re.compile(r" WITH \([^)]*\)| USING btree|\bpublic\.|[()\"]")

# What a migration may do that waits until no process of an older release is left.
_TIGHTENS = re.compile(r" SET NOT NULL\.$|is missing: (CREATE UNIQUE INDEX|ALTER TABLE \w+ ADD CONSTRAINT) ")


@dataclass
class _Live:
    columns: dict[str, tuple[str, bool, bool]] = field(default_factory=dict)  # type, NOT NULL, has a default
    indexes: dict[str, str] = field(default_factory=dict)  # what they hold, by name
    invalid: set[str] = field(default_factory=set)
    triggers: dict[str, str] = field(default_factory=dict)  # their definitions, by name
    disabled: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Declared:
    name: str
    holds: str
    statement: str  # that makes it
    drop: str


def differences(connection: Connection, *, may_be_loose: bool = False) -> list[str]:
    """A sentence for each part of the schema that is missing or not as declared, and the statement to mend it.

    `may_be_loose`: a migration waits. Columns may still be null, and unique indexes be missing.
    """
    live: defaultdict[str, _Live] = defaultdict(_Live)
    functions: dict[str, str] = {}
    tables = [table.name for table in metadata.sorted_tables]
    names = {"tables": tables, "functions": list(FUNCTIONS)}
    for table, name, what, flag, has_default, kind in connection.execute(_LIVE, names):
        if what is None:
            continue  # it was dropped during the query
        if kind == "column":
            live[table].columns[name] = (what, flag, has_default)
        elif kind == "index":
            live[table].indexes[name] = _plain(what)
            live[table].invalid |= set() if flag else {name}
        elif kind == "trigger":
            live[table].triggers[name] = _plain(what)
            live[table].disabled |= set() if flag else {name}
        else:
            functions[name] = _plain(what)
    found = [
        *chain.from_iterable(_of_table(table, live.get(table.name)) for table in metadata.sorted_tables),
        *_of_functions(functions),
        *chain.from_iterable(_of_trigger(one, live[one.table]) for one in TRIGGERS if one.table in live),
    ]
    return [sentence for sentence in found if not (may_be_loose and _TIGHTENS.search(sentence))]


def _of_table(table: Table, live: _Live | None) -> Iterator[str]:
    if live is None:
        yield (
            f"The table {table.name} is missing: restore it from a backup, or from the schema of a new installation "
            f"(`dx-dagster migrate` on an empty database, then `pg_dump --schema-only --table {table.name}`)."
        )
        return
    for column in table.columns:
        yield from _of_column(f"{column.name} of the table {table.name}", column, live)
    for index in _indexes(table):
        if index.name in live.invalid:
            yield f"The index {index.name} of the table {table.name} is invalid: REINDEX INDEX {index.name}."
        elif (held := live.indexes.get(index.name)) is None:
            yield f"The index {index.name} of the table {table.name} is missing: {index.statement}."
        elif held != index.holds:
            yield (
                f"The index {index.name} of the table {table.name} has another definition: {index.drop}; "
                f"{index.statement}."
            )


def _of_column(what: str, column: Column[Any], live: _Live) -> Iterator[str]:
    alter = f"ALTER TABLE {column.table.name}"
    if column.name not in live.columns:
        yield f"The column {what} is missing: {alter} ADD COLUMN {_sql(CreateColumn(column))}."
        return
    kind, not_null, has_default = live.columns[column.name]
    alter = f"{alter} ALTER COLUMN {column.name}"
    if kind != (declared := type_name(column)):
        yield f"The column {what} has the type {kind} instead of {declared}: {alter} TYPE {declared}."
    if not_null and column.nullable:
        yield f"The column {what} is NOT NULL: {alter} DROP NOT NULL."
    if not not_null and not column.nullable:
        yield f"The column {what} may be null: {alter} SET NOT NULL."
    if not has_default and column.identity is not None:
        yield f"The column {what} has no default: {alter} ADD GENERATED BY DEFAULT AS IDENTITY."
    elif not has_default and column.server_default is not None:
        default = _sql(CreateColumn(column)).partition("DEFAULT ")[2].removesuffix(" NOT NULL")
        yield f"The column {what} has no default: {alter} SET DEFAULT {default}."


# What changed meanwhile was not noted.
_BUILD_AGAIN = "DELETE FROM build_marks"


def _of_functions(live: dict[str, str]) -> Iterator[str]:
    for name, body in FUNCTIONS.items():
        if live.get(name) != _plain(body):
            state = "has another definition" if name in live else "is missing"
            yield f"The function {name} {state}: {create_function(name)}; {_BUILD_AGAIN}."


def _of_trigger(trigger: Trigger, live: _Live) -> Iterator[str]:
    what = f"The trigger {trigger.name} of the table {trigger.table}"
    if (held := live.triggers.get(trigger.name)) is None:
        yield f"{what} is missing: {trigger.statement}; {_BUILD_AGAIN}."
    elif held != _plain(trigger.statement):
        drop = f"DROP TRIGGER {trigger.name} ON {trigger.table}"
        yield f"{what} has another definition: {drop}; {trigger.statement}; {_BUILD_AGAIN}."
    elif trigger.name in live.disabled:
        yield f"{what} is disabled: ALTER TABLE {trigger.table} ENABLE TRIGGER {trigger.name}; {_BUILD_AGAIN}."


def _indexes(table: Table) -> Iterator[_Declared]:
    """The declared indexes, and those of keys and unique constraints."""
    for index in table.indexes:
        statement = _sql(CreateIndex(index))
        yield _Declared(str(index.name), _plain(statement), statement, f"DROP INDEX {index.name}")
    keys: list[tuple[str, str, PrimaryKeyConstraint | UniqueConstraint]] = [
        (f"{table.name}_pkey", "PRIMARY KEY", table.primary_key)
    ]
    keys += [(str(one.name), "UNIQUE", one) for one in table.constraints if isinstance(one, UniqueConstraint)]
    for name, kind, constraint in keys:
        columns = ", ".join(column.name for column in constraint.columns)
        yield _Declared(
            name,
            _plain(f"CREATE UNIQUE INDEX {name} ON {table.name} ({columns})"),
            f"ALTER TABLE {table.name} ADD CONSTRAINT {name} {kind} ({columns})",
            f"ALTER TABLE {table.name} DROP CONSTRAINT {name}",
        )


def _plain(definition: str) -> str:
    return " ".join(_NOISE.sub("", definition).split())


def _sql(element: CreateColumn | CreateIndex) -> str:
    return " ".join(str(element.compile(dialect=_dialect())).split())


@cache
def _dialect() -> Any:
    return postgresql.dialect()  # type: ignore[no-untyped-call]
