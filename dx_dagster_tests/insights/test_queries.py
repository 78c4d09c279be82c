"""Queries as users of DX write them, each against figures worked out by hand: queries/*.sql."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg

from dx_dagster_tests.insights.small_workspace import QUERIES, fill

LEAST = 30


class Query(NamedTuple):
    title: str
    rows: list[str]
    statement: str


def queries(file: Path) -> Iterator[Query]:
    """The queries of a file: each begins with `-- ## TITLE`, and its expected rows with `-- = `."""
    for text in file.read_text().split("-- ## ")[1:]:
        title, *lines = text.splitlines()
        rows = [line.removeprefix("-- = ") for line in lines if line.startswith("-- = ")]
        yield Query(f"{file.stem}: {title}", rows, "\n".join(line for line in lines if not line.startswith("--")))


def answer(connection: psycopg.Connection, query: Query) -> list[str]:
    try:
        with connection.transaction():
            rows = connection.execute(query.statement.encode()).fetchall()
    except psycopg.Error as error:
        return [str(error)]
    return [" | ".join(map(str, row)) for row in rows]


def test_queries_as_users_of_dx_write_them_give_what_was_worked_out_by_hand(database_url):
    fill(database_url)
    every = [query for file in sorted(QUERIES.glob("*.sql")) for query in queries(file)]
    assert len(every) >= LEAST
    with psycopg.connect(database_url) as connection:
        answers = [(query, answer(connection, query)) for query in every]
    assert {query.title: (got, query.rows) for query, got in answers if got != query.rows} == {}
