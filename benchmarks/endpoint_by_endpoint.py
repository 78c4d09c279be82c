"""The documented way: every endpoint that DX's connector page names, asked in turn, by plain asyncio.

Per pull request that is its activity, its comments, its commits and, where it was merged, its merge commit. Fair in all
else: the largest pages, narrow answers, keep-alive, as many requests in flight as ours, one transaction for all of a
pull request.

    python -m benchmarks.endpoint_by_endpoint WORKSPACE REQUESTS_IN_FLIGHT
"""

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from http import HTTPStatus

import httpx
from psycopg_pool import AsyncConnectionPool

from benchmarks import narrowing, shapes
from benchmarks.shapes import Json, Row, Table, inner

TRIES = 6
STATES = ("OPEN", "MERGED", "DECLINED", "SUPERSEDED")
_NOT_FOR_US = {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
_LATER = {HTTPStatus.TOO_MANY_REQUESTS, *range(500, 600)}
Params = Mapping[str, str | int | Sequence[str]]


class Api:
    """GET with a bound on requests in flight; tries again where that may help."""

    def __init__(self, client: httpx.AsyncClient, in_flight: int) -> None:
        self._client, self._places = client, asyncio.Semaphore(in_flight)

    async def get(self, address: str, params: Params | None = None) -> Json | None:
        """The answer; None for what may not be seen or is not there."""
        for attempt in range(1, TRIES + 1):
            try:
                async with self._places:
                    response = await self._client.get(address, params=params)
                if response.status_code in _NOT_FOR_US:
                    return None
                if response.status_code not in _LATER:
                    response.raise_for_status()
                    found: Json = json.loads(response.text.replace("\\u0000", ""))  # PostgreSQL has no NUL
                    return found
            except httpx.TransportError:
                if attempt == TRIES:
                    raise
            await asyncio.sleep(2**attempt * random.random())  # noqa: S311
        raise httpx.HTTPError(f"{address} did not answer")

    async def pages(self, path: str, **params: str | int | Sequence[str]) -> AsyncIterator[list[Json]]:
        page = await self.get(path, params)
        while page is not None:
            yield page["values"]
            page = await self.get(page["next"]) if page.get("next") else None

    async def all(self, path: str, **params: str | int | Sequence[str]) -> list[Json]:
        return [value async for page in self.pages(path, **params) for value in page]


class Importer:
    def __init__(self, api: Api, pool: AsyncConnectionPool, workspace: str) -> None:
        self._api, self._pool, self._workspace = api, pool, workspace
        self._known: set[str] = set()

    async def run(self) -> None:
        async with self._pool.connection() as connection:
            for table in shapes.TABLES:
                await connection.execute(table.create.encode())
        members = await self._api.all(f"/workspaces/{self._workspace}/members", pagelen=100)
        found = [member["user"] for member in members]
        self._known.update(user["uuid"] for user in found)
        await self._store((shapes.USERS, [shapes.user(user, active=True) for user in found]))
        path = f"/repositories/{self._workspace}"
        async with asyncio.TaskGroup() as group:
            async for page in self._api.pages(path, pagelen=100, fields=narrowing.REPOSITORIES):
                await self._store((shapes.REPOSITORIES, [shapes.repository(value) for value in page]))
                for value in page:
                    group.create_task(self._repository(value))

    async def _repository(self, value: Json) -> None:
        path, uuid = f"/repositories/{self._workspace}/{value['slug']}", value["uuid"]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pulls(path, uuid))
            group.create_task(self._pipelines(path, uuid))
            if branch := inner(value, "mainbranch", "name"):
                group.create_task(self._branch_commits(path, uuid, branch))

    async def _pulls(self, path: str, repository: str) -> None:
        path = f"{path}/pullrequests"
        async for page in self._api.pages(path, state=STATES, pagelen=50, fields=narrowing.PULL_REQUESTS):
            async with asyncio.TaskGroup() as group:
                for value in page:
                    group.create_task(self._pull(path, repository, value))

    async def _pull(self, pulls: str, repository: str, value: Json) -> None:
        number: int = value["id"]
        path, commits = f"{pulls}/{number}", pulls.removesuffix("pullrequests")
        short = inner(value, "merge_commit", "hash")
        async with asyncio.TaskGroup() as group:
            activity = group.create_task(self._api.all(f"{path}/activity", pagelen=50))
            comments = group.create_task(self._api.all(f"{path}/comments", pagelen=100))
            listed = group.create_task(self._api.all(f"{path}/commits", pagelen=100, fields=narrowing.COMMITS))
            merge = group.create_task(self._merge_commit(commits, short)) if short else None
        participants = value.get("participants") or []
        met = [inner(value, "author"), inner(value, "closed_by"), *(one["user"] for one in participants)]
        met += [inner(one, "user") for one in comments.result()]
        met += [inner(one, "author", "user") for one in listed.result()]
        await self._store(
            self._met(met),
            (shapes.PULLS, [shapes.pull(repository, value, merge.result() if merge else None)]),
            (shapes.PARTICIPANTS, [shapes.participant(repository, number, one) for one in participants]),
            (shapes.ACTIVITIES, [shapes.activity(repository, number, one) for one in activity.result()]),
            (shapes.COMMENTS, [shapes.comment(repository, number, one) for one in comments.result()]),
            (shapes.PULL_COMMITS, [{"pull": number, **shapes.commit(repository, one)} for one in listed.result()]),
        )

    async def _merge_commit(self, repository: str, short: str) -> str:
        """Pull requests give hashes by twelve characters; the whole one costs a request."""
        found = await self._api.get(f"{repository}commit/{short}", {"fields": narrowing.COMMIT})
        return str(found["hash"]) if found else short

    async def _branch_commits(self, path: str, repository: str, branch: str) -> None:
        async for page in self._api.pages(f"{path}/commits/{branch}", pagelen=100, fields=narrowing.COMMITS):
            met = [inner(value, "author", "user") for value in page]
            await self._store(
                self._met(met), (shapes.BRANCH_COMMITS, [shapes.commit(repository, value) for value in page])
            )

    async def _pipelines(self, path: str, repository: str) -> None:
        async for page in self._api.pages(f"{path}/pipelines/", pagelen=100):
            met = [inner(value, "creator") for value in page]
            await self._store(
                self._met(met), (shapes.PIPELINES, [shapes.pipeline(repository, value) for value in page])
            )

    def _met(self, users: Iterable[Json | None]) -> tuple[Table, list[Row]]:
        """Those met for the first time, in the order of their keys, so that two transactions cannot deadlock."""
        new = {user["uuid"]: user for user in users if user and user["uuid"] not in self._known}
        self._known.update(new)
        return shapes.USERS, [shapes.user(new[uuid], active=False) for uuid in sorted(new)]

    async def _store(self, *rows: tuple[Table, list[Row]]) -> None:
        async with self._pool.connection() as connection, connection.cursor() as cursor:
            for table, values in rows:
                if values:
                    await cursor.executemany(table.upsert.encode(), values)


async def main(workspace: str, in_flight: int) -> None:
    headers = {"Authorization": f"Bearer {os.environ['BITBUCKET_TOKEN']}"}
    limits = httpx.Limits(max_connections=in_flight)
    async with (
        httpx.AsyncClient(
            base_url=os.environ["BITBUCKET_API_URL"], headers=headers, timeout=60, limits=limits
        ) as client,
        AsyncConnectionPool(os.environ["DX_DATABASE_URL"], min_size=1, max_size=4) as pool,
    ):
        await Importer(Api(client, in_flight), pool, workspace).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
