"""Runs the queries of a report's tiles, few at once, within a time for all of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import psycopg
from pydantic import SecretStr

from dx_dagster.insights.reports import tiles
from dx_dagster.insights.reports.files import Tile
from dx_dagster.insights.reports.tiles import MOST_SECONDS, Drawing, Result
from dx_dagster.insights.reports.variables import TileError, Values, bind
from dx_dagster.warehouse import report_access

AT_ONCE, PAGE_SECONDS = 4, 30


@dataclass(frozen=True)
class Outcome:
    """What became of a tile: rows, and their chart unless it is a table; or an error in one sentence."""

    tile: Tile
    result: Result | None = None
    drawing: Drawing | None = None
    error: str = ""


@dataclass(frozen=True)
class Runner:
    """Runs tiles. `turns` bounds the queries of this process, whoever asks for them."""

    turns: anyio.CapacityLimiter

    async def run(self, every: Sequence[Tile], values: Values, address: SecretStr, zone: str) -> list[Outcome]:
        """The outcome of each tile, in their order."""
        deadline = anyio.current_time() + PAGE_SECONDS
        outcomes = [Outcome(tile) for tile in every]

        async def run_one(place: int, tile: Tile) -> None:
            outcomes[place] = await self._outcome(tile, values, address, zone, deadline)

        async with anyio.create_task_group() as group:
            for place, tile in enumerate(every):
                group.start_soon(run_one, place, tile)
        return outcomes

    async def _outcome(self, tile: Tile, values: Values, address: SecretStr, zone: str, deadline: float) -> Outcome:
        try:
            result = await self._result(tile, values, address, zone, deadline)
            return Outcome(tile, result, None if tile.chart_type == "table" else tiles.drawing(tile, result))
        except TileError as error:
            return Outcome(tile, error=str(error))

    async def _result(self, tile: Tile, values: Values, address: SecretStr, zone: str, deadline: float) -> Result:
        query = bind(tile.sql, values)
        with anyio.move_on_after(max(deadline - anyio.current_time(), 0)):
            async with self.turns:
                seconds = min(MOST_SECONDS, deadline - anyio.current_time())
                # Not a scope of anyio's, which would cancel psycopg again while it cancels the query.
                with anyio.CancelScope(shield=True):
                    try:
                        async with (
                            asyncio.timeout(seconds),
                            report_access.reading(address, zone, seconds) as connection,
                        ):
                            return await tiles.run(connection, query)
                    except TimeoutError:
                        raise tiles.too_long() from None
                    except psycopg.Error as error:
                        raise tiles.no_answer(error) from None
        raise TileError(
            f"The query was not run: the other queries took the {PAGE_SECONDS} seconds that a page has. Show it again."
        )
