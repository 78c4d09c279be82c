"""The metadata that all tables join, and the columns that they have in common."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Numeric,
    Text,
    Uuid,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB

metadata = MetaData()


def type_name(column: Column[Any]) -> str:
    """The column's type as PostgreSQL's `format_type` names it, unlike SQLAlchemy's generic names."""
    return column.type.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]


def uuid_key(comment: str, name: str = "id") -> Column[object]:
    return Column(name, Uuid, primary_key=True, comment=comment)


def number_key(comment: str, kind: type[BigInteger | Integer] = Integer) -> Column[object]:
    return Column("id", kind, Identity(), primary_key=True, comment=comment)


def reference(name: str, comment: str, *, nullable: bool = True) -> Column[object]:
    """The id of an imported row, which may not be stored yet: no foreign key."""
    return Column(name, Uuid, nullable=nullable, comment=comment)


def foreign(name: str, key: str, comment: str | None = None, *, primary_key: bool = False) -> Column[object]:
    """The number of a row that must exist."""
    return Column(name, Integer, ForeignKey(key), nullable=False, primary_key=primary_key, comment=comment or key)


def text(name: str, comment: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, Text, nullable=nullable, comment=comment)


def time(name: str, comment: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, comment=comment)


def time_of_insert(name: str, comment: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now(), comment=comment)


def flag(name: str, comment: str, *, default: bool | None = None) -> Column[object]:
    server_default = None if default is None else sql("true" if default else "false")
    return Column(name, Boolean, nullable=default is None, server_default=server_default, comment=comment)


def number(
    name: str, comment: str, kind: type[BigInteger | Integer] = BigInteger, *, nullable: bool = True
) -> Column[object]:
    return Column(name, kind, nullable=nullable, comment=comment)


def seconds(name: str, comment: str) -> Column[object]:
    return Column(name, DOUBLE_PRECISION, comment=comment)


def exact_seconds(name: str, comment: str) -> Column[object]:
    """Seconds that `round(…, 1)` takes, as queries for DX use it: PostgreSQL has none for double precision."""
    return Column(name, Numeric, comment=comment)


def json(name: str, comment: str, default: str | None = None) -> Column[object]:
    server_default = None if default is None else sql(f"'{default}'")
    return Column(name, JSONB, nullable=False, server_default=server_default, comment=comment)


def synced_at() -> Column[object]:
    return time("synced_at", "When the request that gave this row was sent; breaks ties between equally new versions")
