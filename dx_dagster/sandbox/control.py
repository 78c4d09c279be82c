"""A back door for tests and demonstrations that run the sandbox as a process of its own: `/_sandbox/…`.

No token is asked for, no request is recorded, no fault applies. `?workspace=` names another than the first workspace.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dx_dagster.sandbox.truth import truth

if TYPE_CHECKING:
    from dx_dagster.sandbox.server import Bitbucket
    from dx_dagster.sandbox.tokens import Token
    from dx_dagster.sandbox.world import World


@dataclass
class ControlDoor:
    bitbucket: "Bitbucket"

    def routes(self) -> list[Route]:
        return [
            Route("/_sandbox/step", self._step, methods=["POST"]),
            Route("/_sandbox/faults", self._faults, methods=["POST"]),
            Route("/_sandbox/truth", self._truth, methods=["GET"]),
            Route("/_sandbox/requests", self._requests, methods=["GET"]),
            Route("/_sandbox/requests/reset", self._reset, methods=["POST"]),
            Route("/_sandbox/tokens/revoke", self._revoke, methods=["POST"]),
            Route("/_sandbox/tokens/lose", self._lose, methods=["POST"]),
        ]

    def _world(self, request: Request) -> "World":
        named = self.bitbucket.find(request.query_params.get("workspace", ""))
        return named or self.bitbucket.worlds[0]

    async def _step(self, request: Request) -> Response:
        """Makes `n` random events; what happened, in order."""
        return JSONResponse(self._world(request).step(int(request.query_params.get("n", "1"))))

    async def _faults(self, request: Request) -> Response:
        """Sets faults by name; `{"clear": true}` first switches all off."""
        settings = await request.json()
        if settings.pop("clear", False):
            self.bitbucket.faults.clear()
        try:
            self.bitbucket.faults.set(settings)
        except (TypeError, ValueError) as failure:
            return JSONResponse({"error": str(failure)}, 400)
        return JSONResponse({})

    async def _truth(self, request: Request) -> Response:
        """The truth, within the bound `since` if one is given."""
        since = request.query_params.get("since")
        tables = truth(self._world(request), datetime.fromisoformat(since) if since else None)
        return Response(json.dumps(tables, default=_text), media_type="application/json")

    async def _requests(self, _request: Request) -> Response:
        return JSONResponse({"count": self.bitbucket.requests.count})

    async def _reset(self, _request: Request) -> Response:
        self.bitbucket.requests.reset()
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

    def _tokens(self, sent: dict[str, Any]) -> "list[Token]":
        return [token for token in self.bitbucket.tokens if sent.get("secret") in {None, token.secret}]


async def _sent(request: Request) -> dict[str, Any]:
    return dict(json.loads(await request.body() or b"{}"))


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a table")
