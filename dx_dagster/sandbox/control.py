"""A back door for tests and demonstrations that run the sandbox as a process of its own: `/_sandbox/…`.

No token is asked for, no request is recorded, no fault applies.
"""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dx_dagster.sandbox.truth import truth

if TYPE_CHECKING:
    from dx_dagster.sandbox.server import Bitbucket


def routes(bitbucket: "Bitbucket") -> list[Route]:
    async def step(request: Request) -> Response:
        """Makes `n` random events; what happened, in order."""
        return JSONResponse(bitbucket.world.step(int(request.query_params.get("n", "1"))))

    async def faults(request: Request) -> Response:
        """Sets faults by name; `{"clear": true}` first switches all off."""
        settings = await request.json()
        if settings.pop("clear", False):
            bitbucket.faults.clear()
        try:
            bitbucket.faults.set(settings)
        except (TypeError, ValueError) as failure:
            return JSONResponse({"error": str(failure)}, 400)
        return JSONResponse({})

    async def tables(_request: Request) -> Response:
        return Response(json.dumps(truth(bitbucket.world), default=_text), media_type="application/json")

    async def requests(_request: Request) -> Response:
        return JSONResponse({"count": bitbucket.requests.count})

    async def reset(_request: Request) -> Response:
        bitbucket.requests.reset()
        return JSONResponse({})

    async def revoke(request: Request) -> Response:
        """Revokes the token of `{"secret": …}`; without a body, all."""
        body: Any = json.loads(await request.body() or b"{}")
        for token in bitbucket.tokens:
            token.revoked = token.revoked or body.get("secret") in {None, token.secret}
        return JSONResponse({})

    return [
        Route("/_sandbox/step", step, methods=["POST"]),
        Route("/_sandbox/faults", faults, methods=["POST"]),
        Route("/_sandbox/truth", tables, methods=["GET"]),
        Route("/_sandbox/requests", requests, methods=["GET"]),
        Route("/_sandbox/requests/reset", reset, methods=["POST"]),
        Route("/_sandbox/tokens/revoke", revoke, methods=["POST"]),
    ]


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a table")
