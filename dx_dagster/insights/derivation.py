"""Derived tables: where each column comes from, and the statement that brings the rows up to date."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Table

from dx_dagster.warehouse.database import Transaction

_NAME = re.compile(r"\b([a-z_]+)\.([a-z_]+)\b")
_SECONDARY_INDEXES = """
    SELECT i.relname AS name, pg_get_indexdef(x.indexrelid) AS definition
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    WHERE x.indrelid = %s::regclass AND NOT x.indisprimary ORDER BY i.relname"""
_PRIMARY_KEY = """
    SELECT conname AS name, pg_get_constraintdef(oid) AS definition
    FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'"""
# One row for the workspace in place of one for each pull request.
_NOTE_WORKSPACE = """
    INSERT INTO changed_rows (kind, id, changed_in) VALUES (%(kind)s, %(workspace)s, pg_current_xact_id()::text::bigint)
    ON CONFLICT (kind, id) DO UPDATE SET changed_in = EXCLUDED.changed_in"""
Origins = frozenset[tuple[str, str]]  # table and column


@dataclass(frozen=True)
class Derivation:
    """How the rows of a table are derived.

    Attributes:
        table: the table. If its `id` is an identity, a row keeps it for ever.
        columns: SQL of each column, over the aliases of `rows`.
        rows: SQL from FROM on.
        aliases: what the aliases stand for: a table, or for each column of a subquery the columns it comes from, as
            `table.column`.
        before: SQL that stands before SELECT: WITH and its queries.
        order: SQL of the order in which new rows get their ids; empty for any. It costs a sort of all rows.
        key: columns that tell which stored row is meant.
        parameters: of the statement, besides those of the scope.
        noted_as: kind under which triggers of the table note in `changed_rows` what changed; empty for none.
    """

    table: Table
    columns: Mapping[str, str]
    rows: Composable
    aliases: Mapping[str, "Table | Mapping[str, tuple[str, ...]]"]
    before: Composable = field(default_factory=lambda: SQL(""))
    order: str = ""
    key: tuple[str, ...] = ("source_table_id",)
    parameters: Mapping[str, object] = field(default_factory=dict)
    noted_as: str = ""

    @property
    def origins(self) -> dict[str, Origins]:
        """For each column the columns that its value comes from; none for a constant."""
        return {column: frozenset(self._named_in(expression)) for column, expression in self.columns.items()}

    def _named_in(self, expression: str) -> set[tuple[str, str]]:
        found = set()
        for alias, column in _NAME.findall(expression):
            stands_for = self.aliases.get(alias)
            if isinstance(stands_for, Table):
                found.add((str(stands_for.name), column))
            elif stands_for is not None:
                found.update(_split(origin) for origin in stands_for[column])
        return found

    @property
    def select(self) -> Composed:
        """SELECT of all rows, as `before` and this."""
        expressions = (
            SQL("{} AS {}").format(SQL(expression), Identifier(name)) for name, expression in self.columns.items()
        )
        place = SQL(", row_number() OVER (ORDER BY {}) AS place").format(SQL(self.order)) if self.order else SQL("")
        return SQL("SELECT {}{} {}").format(_listed(expressions), place, self.rows)

    def statement(self, within: Composable | None = None) -> Composed:
        """INSERT … ON CONFLICT DO UPDATE of the rows that differ; returns how many were `inserted` and `updated`.

        Rows that do not differ are left out before: ON CONFLICT would lock each of them, and take a number for it.

        `within`: SQL over a stored row `old`: whether these rows would include it. Such a row that they do not include
        is deleted.
        """
        others = [name for name in self.columns if name not in self.key]
        return SQL("""
            WITH new AS ({before} {select}), {deletion}
            written AS (
                INSERT INTO {table} AS old ({columns})
                SELECT {new_columns} FROM new LEFT JOIN {table} stored USING ({key})
                WHERE stored.{first} IS NULL OR ({stored}) IS DISTINCT FROM ({new}) {order}
                ON CONFLICT ({key}) DO UPDATE SET {changes}
                RETURNING (xmax = 0) AS inserted)
            SELECT count(*) FILTER (WHERE inserted) AS inserted, count(*) FILTER (WHERE NOT inserted) AS updated
            FROM written""").format(
            before=self.before,
            select=self.select,
            deletion=SQL("") if within is None else self._deletion(within),
            table=self._name,
            columns=self._columns,
            new_columns=_listed(Identifier("new", name) for name in self.columns),
            key=_listed(map(Identifier, self.key)),
            first=Identifier(self.key[0]),
            stored=_listed(Identifier("stored", name) for name in others),
            new=_listed(Identifier("new", name) for name in others),
            order=self._in_order,
            changes=_listed(SQL("{name} = excluded.{name}").format(name=Identifier(name)) for name in others),
        )

    def _deletion(self, within: Composable) -> Composed:
        return SQL(
            "gone AS (DELETE FROM {table} old WHERE {within} AND NOT EXISTS (SELECT FROM new WHERE ({new}) = ({old}))),"
        ).format(
            table=self._name,
            within=within,
            new=_listed(Identifier("new", name) for name in self.key),
            old=_listed(Identifier("old", name) for name in self.key),
        )

    @property
    def first_statement(self) -> Composed:
        """INSERT of all rows, for an empty table."""
        return SQL("{before} INSERT INTO {table} ({columns}) SELECT {columns} FROM ({select}) new {order}").format(
            before=self.before, table=self._name, columns=self._columns, select=self.select, order=self._in_order
        )

    @property
    def _name(self) -> Identifier:
        return Identifier(str(self.table.name))

    @property
    def _columns(self) -> Composed:
        return _listed(map(Identifier, self.columns))

    @property
    def _in_order(self) -> SQL:
        return SQL("ORDER BY new.place" if self.order else "")


async def derive(
    transaction: Transaction,
    derivation: Derivation,
    bound: Mapping[str, object],
    *,
    within: Composable | None = None,
) -> None:
    """Inserts and updates the table's rows, and counts those written.

    `within`: as in `Derivation.statement`. The table has no unique column besides its keys then: its rows are deleted
    and inserted at once.
    """
    name = str(derivation.table.name)
    bound = {**derivation.parameters, **bound}
    if await reserve_if_empty(transaction, name):
        transaction.count(name, inserted=await _fill(transaction, derivation, bound))
        return
    row = await transaction.row(derivation.statement(within), bound)
    transaction.count(name, inserted=row.inserted, updated=row.updated)


async def reserve_if_empty(transaction: Transaction, table: str) -> bool:
    """Whether the table is empty, and locked against all others until the transaction ends.

    Call it before the transaction reads the table: two that have read it would wait for each other for ever. For the
    same reason its size is looked at, and not its rows: that leaves no lock.
    """
    if not await _has_no_pages(transaction, table):
        return False
    await transaction.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(Identifier(table)))
    return await _has_no_pages(transaction, table)  # another may have filled it while this one waited


async def _has_no_pages(transaction: Transaction, table: str) -> bool:
    row = await transaction.row("SELECT pg_relation_size(%s::regclass) = 0 AS is_empty", [table])
    return bool(row.is_empty)


async def _fill(transaction: Transaction, derivation: Derivation, bound: Mapping[str, object]) -> int:
    """Fills an empty table, and makes its indexes after its rows, which takes a fraction of the time."""
    name = str(derivation.table.name)
    table = Identifier(name)
    key = await transaction.row(_PRIMARY_KEY, [name])
    indexes = await transaction.rows(_SECONDARY_INDEXES, [name])
    await transaction.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(key.name)))
    for index in indexes:
        await transaction.execute(SQL("DROP INDEX {}").format(Identifier(index.name)))
    if derivation.noted_as:
        await transaction.execute(SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table))
        await transaction.execute(_NOTE_WORKSPACE, {"kind": derivation.noted_as, **bound})
    inserted = await transaction.execute(derivation.first_statement, bound)
    if derivation.noted_as:
        await transaction.execute(SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(table))
    added = SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(table, Identifier(key.name), SQL(key.definition))
    await transaction.execute(added)
    for index in indexes:
        await transaction.execute(index.definition)
    # Builds that come next read the table before autovacuum does, which soon makes statistics of more rows than these.
    await transaction.execute("SET LOCAL default_statistics_target = 20")
    await transaction.execute(SQL("ANALYZE {}").format(table))
    return inserted


def _listed(fragments: Iterable[Composable]) -> Composed:
    return SQL(", ").join(fragments)


def _split(origin: str) -> tuple[str, str]:
    table, _, column = origin.partition(".")
    return table, column
