"""Derived tables: where each column comes from, and the statement that brings the rows up to date."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import Table

from dx_dagster.warehouse.database import Transaction

_NAME = re.compile(r"\b([a-z_]+)\.([a-z_]+)\b")
Origins = frozenset[tuple[str, str]]  # table and column


@dataclass(frozen=True)
class Derivation:
    """How the rows of a table are derived.

    Attributes:
        table: the table. Its `id` is an identity, which a row keeps for ever.
        columns: SQL of each column, over the aliases of `rows`.
        rows: SQL from FROM on.
        aliases: what the aliases stand for: a table, or for each column of a subquery the columns it comes from, as
            `table.column`.
        before: SQL that stands before SELECT: WITH and its queries.
        order: SQL of the order in which new rows get their ids.
        key: columns that tell which stored row is meant.
    """

    table: Table
    columns: Mapping[str, str]
    rows: Composable
    aliases: Mapping[str, "Table | Mapping[str, tuple[str, ...]]"]
    before: Composable = field(default_factory=lambda: SQL(""))
    order: str = "1"
    key: tuple[str, ...] = ("source_table_id",)

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
    def statement(self) -> Composed:
        """INSERT … ON CONFLICT DO UPDATE of the rows that differ; returns (inserted) for each row written."""
        others = [name for name in self.columns if name not in self.key]
        return SQL("""
            {before}
            INSERT INTO {table} AS old ({columns})
            SELECT {expressions} {rows} ORDER BY {order}
            ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE ({stored}) IS DISTINCT FROM ({new})
            RETURNING (xmax = 0) AS inserted""").format(
            before=self.before,
            table=Identifier(str(self.table.name)),
            columns=_listed(Identifier(name) for name in self.columns),
            expressions=_listed(SQL(expression) for expression in self.columns.values()),
            rows=self.rows,
            order=SQL(self.order),
            key=_listed(map(Identifier, self.key)),
            changes=_listed(SQL("{name} = excluded.{name}").format(name=Identifier(name)) for name in others),
            stored=_listed(Identifier("old", name) for name in others),
            new=_listed(Identifier("excluded", name) for name in others),
        )


async def derive(transaction: Transaction, derivation: Derivation, bound: Mapping[str, object]) -> None:
    """Inserts and updates the table's rows, and counts those written."""
    counted = SQL(
        "WITH written AS ({statement}) SELECT count(*) FILTER (WHERE inserted) AS inserted, "
        "count(*) FILTER (WHERE NOT inserted) AS updated FROM written"
    )
    row = await transaction.row(counted.format(statement=derivation.statement), bound)
    transaction.count(str(derivation.table.name), inserted=row.inserted, updated=row.updated)


def _listed(fragments: Iterable[Composable]) -> Composed:
    return SQL(", ").join(fragments)


def _split(origin: str) -> tuple[str, str]:
    table, _, column = origin.partition(".")
    return table, column
