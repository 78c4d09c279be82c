"""Routes that steer a sandbox which runs as a process of its own, for tests and demonstrations: `/_sandbox/…`.

They need no token, record no request and know no fault. `?workspace=` names another than the first workspace.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dx_dagster.sandbox.faults import Faults
from dx_dagster.sandbox.recording import Requests
from dx_dagster.sandbox.tokens import Token
from dx_dagster.sandbox.truth import truth
from dx_dagster.sandbox.world import World, find_world


@dataclass
class Control:
    """The routes; they change the very objects that the server works with."""

    worlds: list[World]
    tokens: list[Token]
    faults: Faults
    requests: Requests

    def routes(self) -> list[Route]:
        return [
            Route("/_sandbox/step", self._step, methods=["POST"]),
            Route("/_sandbox/clock", self._clock, methods=["POST"]),
            Route("/_sandbox/faults", self._faults, methods=["POST"]),
            Route("/_sandbox/truth", self._truth, methods=["GET"]),
            Route("/_sandbox/requests", self._requests, methods=["GET"]),
            Route("/_sandbox/requests/reset", self._reset, methods=["POST"]),
            Route("/_sandbox/tokens/revoke", self._revoke, methods=["POST"]),
            Route("/_sandbox/tokens/lose", self._lose, methods=["POST"]),
        ]

    def _world(self, request: Request) -> World:
        return find_world(self.worlds, request.query_params.get("workspace", "")) or self.worlds[0]

    async def _step(self, request: Request) -> Response:
        """Makes `n` random events; returns their names in order."""
        return JSONResponse(self._world(request).step(int(request.query_params.get("n", "1"))))

    async def _clock(self, request: Request) -> Response:
        """Moves the clock forward by `seconds`, without an event."""
        self._world(request).pass_time(timedelta(seconds=float(request.query_params.get("seconds", "0"))))
        return JSONResponse({})

    async def _faults(self, request: Request) -> Response:
        """Sets faults by name; `{"clear": true}` first switches all off."""
        settings = await request.json()
        if settings.pop("clear", False):
            self.faults.clear()
        try:
            self.faults.set(settings)
        except (TypeError, ValueError) as failure:
            return JSONResponse({"error": str(failure)}, 400)
        return JSONResponse({})

    async def _truth(self, request: Request) -> Response:
        """The truth, within the bound `since` if one is given; `sizes=on`: with the sizes of pull requests."""
        since, sizes = request.query_params.get("since"), request.query_params.get("sizes") == "on"
        tables = truth(self._world(request), datetime.fromisoformat(since) if since else None, sizes=sizes)
        return Response(json.dumps(tables, default=_text), media_type="application/json")

    async def _requests(self, _request: Request) -> Response:
        return JSONResponse({"count": self.requests.count})

    async def _reset(self, _request: Request) -> Response:
        self.requests.reset()
        return JSONResponse({})

    async def _revoke(self, request: Request) -> Response:
        """Revokes the token of `{"secret": …}`; without a body, all."""
        for token in self._tokens(await _sent(request)):
            token.revoked = True
        return JSONResponse({})

    async def _lose(self, request: Request) -> Response:
        """Takes access away, of the token of `{"secret": …}` or of all; `"sees_nothing": false` gives it back."""
        sent = await _sent(request)
        for token in self._tokens(sent):
            token.sees_nothing = sent.get("sees_nothing", True)
        return JSONResponse({})

    def _tokens(self, sent: dict[str, Any]) -> list[Token]:
        return [token for token in self.tokens if sent.get("secret") in {None, token.secret}]


async def _sent(request: Request) -> dict[str, Any]:
    return dict(json.loads(await request.body() or b"{}"))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a table")
