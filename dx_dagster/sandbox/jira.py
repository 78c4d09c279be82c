"""A Jira Cloud site beside the made-up workspaces: the same Atlassian accounts, and the e-mail addresses they show.

Tokens without scopes are taken below the site's own address, tokens with scopes below `/ex/jira/CLOUD_ID` only, which
stands for api.atlassian.com: 401 elsewhere, as the real ones answer.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dx_dagster.sandbox.answers import Refused
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.tokens import Token, find_token
from dx_dagster.sandbox.world import World

CLOUD_ID = "11223344-a1b2-4b33-8444-def123456789"
USER_SCOPE = "read:jira-user"
_LARGEST_PAGE = 50
_DEFAULT_PAGE = 10

Answer = Callable[[Request, Token], object]


def _refused(status: int, body: object) -> Refused:
    return Refused(status, json.dumps(body).encode())


def _whole(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name, "")
    return int(given) if given.isdecimal() else default


@dataclass
class Jira:
    """The state of the site; all of it may be changed while the sandbox runs.

    Attributes:
        tokens: API tokens; one whose `scopes` are None is of the old kind, without any.
        strangers: account ids that this site does not know.
    """

    worlds: Sequence[World]
    tokens: list[Token] = field(default_factory=list)
    strangers: set[str] = field(default_factory=set)

    def routes(self) -> Iterator[Route]:
        yield Route("/_edge/tenant_info", self._tenant)
        for prefix in ("", f"/ex/jira/{CLOUD_ID}"):
            yield self._route(prefix, "/rest/api/3/myself", self._myself)
            yield self._route(prefix, "/rest/api/3/user/bulk", self._users)

    async def _tenant(self, _: Request) -> Response:
        return Response(json.dumps({"cloudId": CLOUD_ID}), media_type="application/json")

    def _route(self, prefix: str, path: str, answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                token = self._let_in(request, gateway=bool(prefix))
                return Response(json.dumps(answer(request, token)), media_type="application/json")
            except Refused as no:
                return Response(no.body, no.status, media_type=no.content_type)

        return Route(prefix + path, endpoint)

    def _let_in(self, request: Request, *, gateway: bool) -> Token:
        here = [token for token in self.tokens if (token.scopes is not None) == gateway]
        try:
            token = find_token(request.headers.get("authorization"), here)
        except Refused:
            if gateway:
                raise _refused(401, {"code": 401, "message": "Unauthorized"}) from None
            words = b"Client must be authenticated to access this resource."
            raise Refused(401, words, content_type="text/plain") from None
        request.scope["sandbox.token"] = token.label
        if gateway and USER_SCOPE not in (token.scopes or ()):
            raise _refused(401, {"code": 401, "message": "Unauthorized; scope does not match"})
        return token

    def _myself(self, _: Request, token: Token) -> object:
        return {"accountId": "5b10a2844c20165700ede21g", "accountType": "atlassian", "emailAddress": token.email}

    def _users(self, request: Request, _: Token) -> object:
        asked = request.query_params.getlist("accountId")
        if not asked:
            raise _refused(400, {"errorMessages": ["The accountId query parameter needs to be provided"], "errors": {}})
        everybody: list[User] = []
        for world in self.worlds:
            with world.lock:
                everybody += world.people.everybody
        known = {user.account_id: user for user in everybody if user.account_id not in self.strangers}
        found = [known[one] for one in dict.fromkeys(asked) if one in known]
        start = _whole(request, "startAt", 0)
        most = min(_whole(request, "maxResults", _DEFAULT_PAGE), _LARGEST_PAGE)
        return {
            "maxResults": most,
            "startAt": start,
            "total": len(found),
            "isLast": start + most >= len(found),
            "values": [_account(user) for user in found[start : start + most]],
        }


def _account(user: User) -> dict[str, object]:
    """An account that hides its address lacks the field, or has an empty one."""
    account: dict[str, object] = {
        "accountId": user.account_id,
        "accountType": "app" if user.kind in {"app_user", "AppUser"} else "atlassian",
        "displayName": user.display_name,
        "active": True,
    }
    if user.shown_email is not None:
        account["emailAddress"] = user.shown_email
    elif user.kind == "user":
        account["emailAddress"] = ""
    return account
