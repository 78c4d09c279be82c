"""The application: the table of routes, and the checks before each handler: token, rate limit, scope."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dx_dagster.sandbox import routes_commits, routes_diffstats, routes_pulls, routes_repositories
from dx_dagster.sandbox.answers import Refused, error
from dx_dagster.sandbox.calls import IncomingCall, Memory
from dx_dagster.sandbox.control import Control
from dx_dagster.sandbox.faults import Faults, FaultyServer
from dx_dagster.sandbox.hooks import Hooks
from dx_dagster.sandbox.jira import Jira
from dx_dagster.sandbox.recording import Recorder, Requests
from dx_dagster.sandbox.tokens import RateLimit, Token, find_token
from dx_dagster.sandbox.world import World, find_world

JSON = "application/json; charset=utf-8"
Handler = Callable[[IncomingCall], bytes | tuple[int, bytes]]


@dataclass
class Bitbucket:
    """The state of the server; tests change it while it runs. There is at least one world."""

    worlds: list[World]
    tokens: list[Token]
    limits: RateLimit
    faults: Faults
    requests: Requests = field(default_factory=Requests)
    hooks: Hooks = field(default_factory=Hooks)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.jira = Jira(self.worlds)

    def application(self) -> ASGIApp:
        routes = [self._route(*row) for row in table(self.hooks)]
        control = Control(self.worlds, self.tokens, self.faults, self.requests)
        app = Starlette(routes=[*control.routes(), *self.jira.routes(), *routes])
        app.router.redirect_slashes = False
        return Recorder(FaultyServer(app, self.faults), self.requests)

    def _route(self, method: str, path: str, need: str, handler: Handler) -> Route:
        resource = "webhooks" if need.startswith("webhook") else "api"

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            headers: dict[str, str] = {}
            try:
                token = find_token(request.headers.get("authorization"), self.tokens)
                request.scope["sandbox.token"] = token.label
                headers = self.limits.spend(token, resource)
                if need != "none":
                    token.check(need)
                return self._answer(request, token, body, handler, headers)
            except Refused as no:
                return Response(no.body, no.status, {"content-type": no.content_type} | headers | no.headers)

        return Route(f"/2.0{path}", endpoint, methods=[method])

    def _answer(
        self, request: Request, token: Token, body: bytes, handler: Handler, headers: dict[str, str]
    ) -> Response:
        url = f"{request.url.scheme}://{request.url.netloc}{request.scope['path']}"
        world = self._world(request.path_params)
        call = IncomingCall(
            self.worlds, world, self.memory, self.faults, token,
            request.method, url, request.path_params, request.query_params, body,
        )  # fmt: skip
        with world.lock:
            answer = handler(call)
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        return Response(content, status, headers, media_type=JSON)

    def _world(self, path: Mapping[str, str]) -> World:
        """The world that holds the subject of a path; the first one for a path without a subject.

        A repository is found by its uuid without its workspace, and below its old workspace if the faults say so.
        """
        workspace, repository = path.get("workspace", ""), path.get("repository", "")
        named = find_world(self.worlds, workspace)
        if repository.startswith("{") and (workspace == "{}" or (named and self.faults.moved_answers_elsewhere)):
            named = next((world for world in self.worlds if world.holds(repository)), named)
        return named or self.worlds[0]


def nothing_here(_call: IncomingCall) -> bytes:
    raise Refused(404, error("Resource not found", detail="There is no API hosted at this URL"))


def table(hooks: Hooks) -> list[tuple[str, str, str, Handler]]:
    """Method, path, required scope (a key of `tokens.NEEDS`) and handler."""
    pulls, commits, rest = routes_pulls, routes_commits, routes_repositories
    workspace, repository = "/workspaces/{workspace}", "/repositories/{workspace}/{repository}"
    pull = f"{repository}/pullrequests/{{number}}"
    rows: list[tuple[str, str, str, Handler]] = [
        *(("GET", path, "none", rest.removed) for path in ("/repositories", "/repositories/", "/workspaces")),
        ("GET", "/user/permissions/{anything:path}", "none", rest.removed),
        ("GET", "/user", "user", rest.user),
        ("GET", "/user/workspaces", "members", rest.user_workspaces),
        ("GET", workspace, "workspace", rest.workspace),
        ("GET", f"{workspace}/members", "members", rest.members),
        ("GET", f"{workspace}/members/{{member}}", "members", rest.member),
        ("GET", "/repositories/{workspace}", "repository", rest.repositories),
        ("GET", repository, "repository", rest.repository),
        ("GET", f"{repository}/pullrequests", "pullrequest", pulls.pull_requests),
        ("GET", f"{repository}/pullrequests/activity", "pullrequest", pulls.repository_activity),
        ("GET", pull, "pullrequest", pulls.pull_request),
        ("GET", f"{pull}/activity", "pullrequest", pulls.activity),
        ("GET", f"{pull}/comments", "pullrequest", pulls.comments),
        ("GET", f"{pull}/comments/{{comment}}", "pullrequest", pulls.comment),
        ("GET", f"{pull}/commits", "pullrequest", commits.pull_request_commits),
        ("GET", f"{pull}/diffstat", "pullrequest", routes_diffstats.pull_request_diffstat),
        ("GET", f"{repository}/diffstat/{{spec:path}}", "repository", routes_diffstats.diffstat),
        ("GET", f"{repository}/commit/{{revision}}", "repository", commits.commit),
        *((method, f"{repository}/commits{end}", "repository", commits.commits)
          for method in ("GET", "POST") for end in ("", "/", "/{revision:path}")),
        *(("GET", f"{repository}/pipelines{end}", "pipeline", rest.pipelines) for end in ("", "/")),
        ("GET", f"{repository}/pipelines/{{pipeline}}", "pipeline", rest.pipeline),
        *(("GET", f"{repository}/environments{end}", "pipeline", rest.environments) for end in ("", "/")),
        ("GET", f"{repository}/environments/{{environment}}", "pipeline", rest.environment),
        *(("GET", f"{repository}/deployments{end}", "pipeline", rest.deployments) for end in ("", "/")),
        ("GET", f"{repository}/deployments/{{deployment}}", "pipeline", rest.deployment),
    ]  # fmt: skip
    for owner in (workspace, repository):
        rows += [
            ("GET", f"{owner}/hooks", "webhook", hooks.list),
            ("POST", f"{owner}/hooks", "webhook:write", hooks.create),
            ("GET", f"{owner}/hooks/{{hook}}", "webhook", hooks.get),
            ("PUT", f"{owner}/hooks/{{hook}}", "webhook:write", hooks.change),
            ("DELETE", f"{owner}/hooks/{{hook}}", "webhook:delete", hooks.delete),
        ]
    return [*rows, ("GET", "/{anything:path}", "none", nothing_here)]
