"""Workspaces, members, users, repositories, pipelines and deployments."""

import re
from collections.abc import Mapping

from dx_dagster.sandbox import rendering
from dx_dagster.sandbox.answers import Refused, error, gone
from dx_dagster.sandbox.bbql import Getter
from dx_dagster.sandbox.calls import IncomingCall, encode
from dx_dagster.sandbox.deployments import Deployment, Environment
from dx_dagster.sandbox.fields import ABSENT, Selection
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pipelines import Pipeline
from dx_dagster.sandbox.rendering import Json
from dx_dagster.sandbox.repositories import HostedRepository

REPOSITORY_FIELDS: Mapping[str, Getter] = {
    "uuid": lambda r: r.uuid,
    "name": lambda r: r.name,
    "slug": lambda r: r.slug,
    "full_name": lambda r: r.full_name,
    "description": lambda r: r.description,
    "is_private": lambda r: r.is_private,
    "created_on": lambda r: r.created_on,
    "updated_on": lambda r: r.updated_on,
    "language": lambda r: r.language,
    "size": lambda r: len(r.graph),
    "mainbranch.name": lambda r: r.main_branch,
    "project.key": lambda r: r.project.key,
    "project.uuid": lambda r: r.project.uuid,
}
PIPELINE_FIELDS: Mapping[str, Getter] = {
    "created_on": lambda p: (p.created_on, p.nanoseconds, p.build_number),
    "run_creation_date": lambda p: (p.created_on, p.nanoseconds, p.build_number),
    "creator.uuid": lambda p: p.creator and p.creator.uuid,
}

_MOST_EMAILS = 90
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def _whole(call: IncomingCall, rendered: Json) -> bytes:
    return encode(call.selection.apply(rendered))


def workspace(call: IncomingCall) -> bytes:
    call.check_workspace()
    if call.faults.workspace_gone:
        raise gone()
    return _whole(call, rendering.workspace(call.world))


def members(call: IncomingCall) -> bytes:
    """The members; with `q` those with the given addresses (docs/bitbucket-api.md, "Workspaces and members")."""
    call.check_workspace()
    listed = call.faults.left_of("members", call.world.people.members)
    if "q" not in call.query or call.token.filters_members == "ignored":
        return call.page(listed, lambda user, selection: _membership(call, user, selection))
    if call.token.filters_members == "forbidden":
        raise Refused(403, error("Only administrators of the workspace may filter members by e-mail address."))
    if call.token.filters_members == "invalid":
        raise Refused(400, error("Invalid query"))
    found = call.filtered(listed, {"user.email": _email})
    if len(_QUOTED.findall(call.query["q"])) > _MOST_EMAILS:
        raise Refused(400, error(f"At most {_MOST_EMAILS} addresses can be given"))
    shown = call.token.filters_members == "yes"
    return call.page(found, lambda user, selection: _membership(call, user, selection, with_email=shown))


def _email(user: User) -> str | None:
    return user.email.lower() if user.kind == "user" else None


def member(call: IncomingCall) -> bytes:
    """A member by uuid in braces or account id; 404 for any other account."""
    call.check_workspace()
    wanted = call.path["member"]
    for user in call.world.people.members:
        if wanted in {user.uuid, user.account_id}:
            return _membership(call, user, call.selection)
    raise Refused(404, error(f"{wanted} is not a member of {call.path['workspace']}"))


def _membership(call: IncomingCall, user: User, selection: Selection, *, with_email: bool = False) -> bytes:
    short = rendering.workspace(call.world, short=True)
    row = {"type": "workspace_membership", "user": rendering.person(user), "workspace": short}
    if with_email and (selection.included or selection.added):
        whole = row | {"user": {**(rendering.person(user) or {}), "email": user.email}}
        return encode(selection.assemble(row, lambda name, below: (whole if below else row).get(name, ABSENT)))
    return encode(selection.apply(row))


def _refuse_access_tokens(call: IncomingCall) -> None:
    """Refuses access tokens, which belong to no person, at endpoints about a person."""
    if call.token.kind == "workspace" and not call.faults.user_for_access_tokens:
        raise Refused(403, error("This API is not accessible by this authentication mechanism"))


def user(call: IncomingCall) -> bytes:
    _refuse_access_tokens(call)
    me = rendering.person(call.world.people.members[0]) or {}
    return _whole(call, me | {"is_staff": False, "location": None, "has_2fa_enabled": None})


def user_workspaces(call: IncomingCall) -> bytes:
    _refuse_access_tokens(call)
    seen = [rendering.workspace(world, short=True) for world in call.worlds if call.token.opens(world)]
    shorts = [{name: whole[name] for name in ("uuid", "slug", "links")} | {"type": "workspace_base"} for whole in seen]
    rows = [{"type": "workspace_access", "administrator": True, "workspace": short} for short in shorts]
    return call.page(rows, lambda item, selection: encode(selection.apply(item)))


def removed(_call: IncomingCall) -> bytes:
    raise gone()


def repositories(call: IncomingCall) -> bytes:
    """`/repositories/` without a workspace is the removed global listing: 410 (docs/bitbucket-api.md, "Errors")."""
    call.check_workspace()
    shown = [repository for repository in call.world.repositories if call.token.is_told_of(repository)]
    found = call.filtered(call.faults.left_of("repositories", shown), REPOSITORY_FIELDS)
    return call.page(call.sorted(found, REPOSITORY_FIELDS), lambda r, selection: _repository(call, r, selection))


def repository(call: IncomingCall) -> bytes:
    return _repository(call, call.repository(), call.selection)


def _repository(call: IncomingCall, repository: HostedRepository, selection: Selection) -> bytes:
    def render() -> bytes:
        rendered = rendering.repository(call.world, repository)
        return encode(selection.apply(rendered))

    parent = repository.parent.names_version if repository.parent else 0
    version = (repository.version, repository.names_version, parent, len(repository.graph))
    return call.memory.rendered(("repository", repository.uuid, selection.text), version, render)


def pipelines(call: IncomingCall) -> bytes:
    """Oldest first; `q` is ignored; `next` drops `sort` and `fields` (docs/bitbucket-api.md, "Pipelines")."""
    repository = _with_pipelines(call)
    found = call.faults.left_of("pipelines", repository.pipelines)
    sort = call.query.get("sort", "")
    if sort.removeprefix("-") in {"created_on", "run_creation_date"}:  # they come that way; sorting 40,000 takes long
        found = found[::-1] if sort.startswith("-") else found
    else:
        found = call.sorted(found, PIPELINE_FIELDS)
    wanted = call.query.getlist("status")
    if wanted:
        found = [p for p in found if _status(p) in wanted]
    creator, branch = call.query.get("creator.uuid"), call.query.get("target.branch")
    if creator:
        found = [p for p in found if p.creator and p.creator.uuid == creator]
    if branch:
        found = [p for p in found if p.ref_name == branch and not p.pull_request]
    return call.page(
        found, lambda p, selection: _pipeline(call, repository, p, selection), next_drops=("sort", "fields")
    )


def pipeline(call: IncomingCall) -> bytes:
    repository, wanted = _with_pipelines(call), call.path["pipeline"]
    for found in repository.pipelines:
        if wanted in {found.uuid, str(found.build_number)}:
            return _pipeline(call, repository, found, call.selection)
    raise Refused(404, error(f"Pipeline {wanted} not found", typed=False))


def _with_pipelines(call: IncomingCall) -> HostedRepository:
    repository = call.repository()
    bare = call.url.endswith(("/pipelines", "/environments", "/deployments"))
    if not repository.has_pipelines or (bare and call.faults.pipelines_with_slash_only):
        raise Refused(404, error("Resource not found", detail="There is no API hosted at this URL"))
    return repository


def _status(pipeline: Pipeline) -> str:
    """The values of the filter `status`, which differ from those of the answer."""
    words = {"SUCCESSFUL": "PASSED", "RUNNING": "BUILDING", "EXPIRED": "UNKNOWN"}
    state = pipeline.result or pipeline.stage or pipeline.state
    return words.get(state, state)


def _pipeline(call: IncomingCall, repository: HostedRepository, pipeline: Pipeline, selection: Selection) -> bytes:
    def render() -> bytes:
        rendered = rendering.pipeline(repository, pipeline)
        return encode(selection.apply(rendered))

    pull_request = pipeline.pull_request
    version = (pipeline.version, repository.names_version, pull_request.version if pull_request else 0)
    return call.memory.rendered(("pipeline", pipeline.uuid, selection.text), version, render)


def environments(call: IncomingCall) -> bytes:
    repository = _with_pipelines(call)
    return call.page(call.faults.left_of("environments", repository.environments), _environment)


def environment(call: IncomingCall) -> bytes:
    repository, wanted = _with_pipelines(call), call.path["environment"]
    for found in repository.environments:
        if found.uuid == wanted:
            return _environment(found, call.selection)
    raise Refused(404, error(f"Environment {wanted} not found", typed=False))


def _environment(environment: Environment, selection: Selection) -> bytes:
    return encode(selection.apply(rendering.environment(environment)))


def deployments(call: IncomingCall) -> bytes:
    """`q` is ignored, any `sort` refused; the order is not documented (docs/bitbucket-api.md, "Deployments")."""
    repository = _with_pipelines(call)
    if "sort" in call.query:
        raise Refused(400, error("Invalid sort attribute"))
    found = sorted(repository.deployments, key=_ORDERS[repository.config.deployments_order])
    if repository.config.deployments_order != "oldest":
        found.reverse()
    listed = call.faults.left_of("deployments", found)
    return call.page(listed, lambda one, selection: _deployment(call, repository, one, selection))


_ORDERS: Mapping[str, Getter] = {
    "created": lambda one: one.release.created_on,
    "oldest": lambda one: one.release.created_on,
    "updated": lambda one: one.updated_on or one.release.created_on,
}


def deployment(call: IncomingCall) -> bytes:
    repository, wanted = _with_pipelines(call), call.path["deployment"]
    for found in repository.deployments:
        if found.uuid == wanted:
            return _deployment(call, repository, found, call.selection)
    raise Refused(404, error(f"Deployment {wanted} not found", typed=False))


def _deployment(
    call: IncomingCall, repository: HostedRepository, deployment: Deployment, selection: Selection
) -> bytes:
    def render() -> bytes:
        return encode(selection.apply(rendering.deployment(repository, deployment)))

    version = (deployment.version, repository.names_version)
    return call.memory.rendered(("deployment", deployment.uuid, selection.text), version, render)
