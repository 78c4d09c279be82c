"""The API's JSON for repositories, people, commits and pipelines. Shapes are those of recorded responses.

`links` name api.bitbucket.org, whatever the sandbox's own address is: nobody is meant to follow them, and the same
seed gives the same bytes on every port. Only `next` is the sandbox's own.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from dx_dagster.sandbox.codebases import Codebase, Fork
from dx_dagster.sandbox.commits import Commit
from dx_dagster.sandbox.deployments import Deployment, Environment
from dx_dagster.sandbox.people import User
from dx_dagster.sandbox.pipelines import Pipeline
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.sandbox.workspace import MadeUpWorkspace

Json = dict[str, Any]

API = "https://api.bitbucket.org/2.0"
SITE = "https://bitbucket.org"
AVATARS = "https://avatar-management--avatars.us-west-2.prod.public.atl-paas.net"


def iso(at: datetime) -> str:
    """A time with microseconds and an offset, the form of most of the API."""
    return at.isoformat(timespec="microseconds")


def nano(at: datetime, nanoseconds: int) -> str:
    """A time of pipelines: Z, up to nine digits, no zeros at the end."""
    digits = f"{at.microsecond:06d}{nanoseconds:03d}".rstrip("0")
    # %Y would write the year 1 with one digit.
    return f"{at.replace(microsecond=0, tzinfo=None).isoformat()}{'.' if digits else ''}{digits}Z"


def links(**hrefs: str) -> Json:
    return {name: {"href": href} for name, href in hrefs.items()}


def text(raw: str) -> Json:
    """Text with its raw form and its HTML."""
    escaped = raw.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").strip()
    return {"type": "rendered", "raw": raw, "markup": "markdown", "html": f"<p>{escaped}</p>" if escaped else ""}


@lru_cache(maxsize=4096)
def _person(user: User, display_name: str, nickname: str | None) -> Json:
    escaped = quote(user.uuid)
    person: Json = {
        "display_name": display_name,
        "links": links(
            self=f"{API}/users/{escaped}",
            avatar=f"{AVATARS}/initials/{display_name[0]}-3.png",
            html=f"{SITE}/{escaped}/",
        ),
        "type": user.kind,
        "uuid": user.uuid,
    }
    if user.account_id is not None:
        person["account_id"] = user.account_id
    if nickname is not None:
        person["nickname"] = nickname
    if user.kind in {"app_user", "AppUser"}:
        person["account_status"] = "active"
    if user.kind == "app_user":
        person["kind"] = "repository_access_token"
    return person


def person(user: User | None) -> Json | None:
    """An account inside another object. The result is shared: never change it."""
    return _person(user, user.display_name, user.nickname) if user else None


def workspace(world: MadeUpWorkspace, *, short: bool = False) -> Json:
    slug = world.config.workspace
    base: Json = {
        "type": "workspace",
        "uuid": world.uuid,
        "name": world.name,
        "slug": slug,
        "links": links(
            avatar=f"{SITE}/workspaces/{slug}/avatar/?ts=1543733398",
            html=f"{SITE}/{slug}/",
            self=f"{API}/workspaces/{slug}",
        ),
    }
    if short:
        return base
    more = links(
        hooks=f"{API}/workspaces/{slug}/hooks",
        members=f"{API}/workspaces/{slug}/members",
        projects=f"{API}/workspaces/{slug}/projects",
        repositories=f"{API}/repositories/{slug}",
    )
    return base | {
        "is_private": True,
        "is_privacy_enforced": False,
        "forking_mode": "allow_forks",
        "created_on": iso(world.created_on),
        "updated_on": iso(world.created_on),
        "links": base["links"] | more,
    }


def repository_reference(repository: Codebase | Fork) -> Json:
    """A repository inside another object."""
    full_name = repository.full_name
    return {
        "type": "repository",
        "full_name": full_name,
        "links": links(
            self=f"{API}/repositories/{full_name}",
            html=f"{SITE}/{full_name}",
            avatar=f"https://bytebucket.org/ravatar/{quote(repository.uuid)}?ts=default",
        ),
        "name": repository.name,
        "uuid": repository.uuid,
    }


def repository(world: MadeUpWorkspace, repository: HostedRepository) -> Json:
    base, project = repository_reference(repository), repository.project
    slug, self_link = world.config.workspace, base["links"]["self"]["href"]
    below = ("pullrequests", "commits", "forks", "watchers", "downloads", "hooks")
    base["links"] |= links(**{name: f"{self_link}/{name}" for name in below})
    base["links"] |= links(
        branches=f"{self_link}/refs/branches", tags=f"{self_link}/refs/tags", source=f"{self_link}/src"
    )
    base["links"]["clone"] = [
        {"name": "https", "href": f"https://{slug}-token@bitbucket.org/{repository.full_name}.git"},
        {"name": "ssh", "href": f"git@bitbucket.org:{repository.full_name}.git"},
    ]
    owner = workspace(world, short=True)
    return base | {
        "slug": repository.slug,
        "description": repository.description,
        "scm": "git",
        "website": None,
        "owner": {
            "display_name": world.name,
            "type": "team",
            "uuid": world.uuid,
            "username": slug,
            "links": owner["links"],
        },
        "workspace": owner,
        "is_private": repository.is_private,
        "project": {
            "type": "project",
            "key": project.key,
            "uuid": project.uuid,
            "name": project.name,
            "links": links(
                self=f"{API}/workspaces/{slug}/projects/{project.key}",
                html=f"{SITE}/{slug}/workspace/projects/{project.key}",
            ),
        },
        "fork_policy": "allow_forks",
        "created_on": iso(repository.created_on),
        "updated_on": iso(repository.updated_on),
        "size": 4096 * len(repository.graph),
        "language": repository.language,
        "mainbranch": {"name": repository.main_branch, "type": "branch"} if repository.main_branch else None,
        "override_settings": {"default_merge_strategy": False, "branching_model": False},
        "parent": repository_reference(repository.parent) if repository.parent else None,
        "has_issues": False,
        "has_wiki": False,
    }


def commit_reference(full_name: str, sha: str) -> Json:
    return {
        "type": "commit",
        "hash": sha,
        "links": links(self=f"{API}/repositories/{full_name}/commit/{sha}", html=f"{SITE}/{full_name}/commits/{sha}"),
    }


def commit(repository: Codebase, commit: Commit) -> Json:
    """A whole commit: the author's `user` is absent where the address belongs to no account."""
    base = commit_reference(repository.full_name, commit.sha)
    self_link = base["links"]["self"]["href"]
    base["links"] |= links(**{name: f"{self_link}/{name}" for name in ("approve", "comments", "statuses")})
    base["links"] |= links(diff=self_link.replace("/commit/", "/diff/"), patch=self_link.replace("/commit/", "/patch/"))
    author: Json = {"type": "author", "raw": commit.raw}
    if commit.user is not None:
        author["user"] = person(commit.user)
    return base | {
        "date": commit.date.isoformat(timespec="seconds"),
        "author": author,
        "message": commit.message,
        "summary": text(commit.message),
        "parents": [commit_reference(repository.full_name, parent.sha) for parent in commit.parents],
        "rendered": {"message": text(commit.message)},
        "repository": repository_reference(repository),
    }


def _pipeline_target(repository: HostedRepository, pipeline: Pipeline) -> Json:
    commit = commit_reference(repository.full_name, pipeline.commit.sha)
    pull_request = pipeline.pull_request
    if pull_request is not None:
        self_link = f"{API}/repositories/{repository.full_name}/pullrequests/{pull_request.number}"
        return {
            "type": "pipeline_pullrequest_target",
            "source": pull_request.source_branch,
            "destination": pull_request.target_branch,
            "destination_commit": {"type": "commit", "hash": pull_request.target.short},
            "commit": commit,
            "selector": {"type": "pull-requests", "pattern": "**"},
            "pullrequest": {
                "type": "pullrequest",
                "id": pull_request.number,
                "title": pull_request.title,
                "draft": pull_request.draft,
                "links": links(self=self_link),
            },
        }
    if pipeline.ref_name is None:
        return {
            "type": "pipeline_commit_target",
            "selector": {"type": "custom", "pattern": "run-tests"},
            "commit": commit,
        }
    return {
        "type": "pipeline_ref_target",
        "ref_type": "branch",
        "ref_name": pipeline.ref_name,
        "commit": commit,
        "selector": {"type": "default"},
    }


def pipeline(repository: HostedRepository, pipeline: Pipeline) -> Json:
    """A run: `completed_on` is absent until it is done, `creator` where a schedule started it.

    `stage` HALTED was seen (badges/shields 10137); Atlassian's description knows RUNNING and PAUSED.
    """
    self_link = f"{API}/repositories/{repository.full_name}/pipelines/{quote(pipeline.uuid)}"
    state: Json = {"type": f"pipeline_state_{pipeline.state.lower()}", "name": pipeline.state}
    if pipeline.result:
        kind = f"pipeline_state_completed_{pipeline.result.lower()}"
        state["result"] = {"type": kind, "name": pipeline.result}
    if pipeline.stage:
        state["stage"] = {"type": f"pipeline_state_in_progress_{pipeline.stage.lower()}", "name": pipeline.stage}
    rendered: Json = {
        "type": "pipeline",
        "uuid": pipeline.uuid,
        "build_number": pipeline.build_number,
        "run_number": pipeline.run_number,
        "state": state,
        "target": _pipeline_target(repository, pipeline),
        "trigger": {"type": f"pipeline_trigger_{pipeline.trigger.lower()}", "name": pipeline.trigger},
        "created_on": nano(pipeline.created_on, pipeline.nanoseconds),
        "repository": repository_reference(repository),
        "build_seconds_used": (pipeline.duration or 0) * 2,
        "first_successful": False,
        "expired": False,
        "has_variables": False,
        "links": links(self=self_link, steps=f"{self_link}/steps/"),
    }
    if pipeline.creator is not None:
        rendered["creator"] = person(pipeline.creator)
    if pipeline.completed_on is not None:
        rendered["completed_on"] = nano(pipeline.completed_on, pipeline.nanoseconds)
    if pipeline.duration is not None:
        rendered["duration_in_seconds"] = pipeline.duration
    return rendered


def environment(environment: Environment) -> Json:
    return {
        "type": "deployment_environment",
        "uuid": environment.uuid,
        "name": environment.name,
        "slug": environment.slug,
        "rank": environment.rank,
        "hidden": environment.hidden,
        "category": {"name": environment.kind},
        "environment_type": {
            "type": "deployment_environment_type",
            "name": environment.kind,
            "rank": environment.rank,
        },
        "deployment_gate_enabled": False,
        "environment_lock_enabled": True,
        "lock": {"type": "deployment_environment_lock_open", "name": "OPEN"},
        "restrictions": {"type": "deployment_restrictions_configuration", "admin_only": False},
    }


def deployment(repository: HostedRepository, deployment: Deployment) -> Json:
    """A deployment: the release stands under two names; its date, only under one; the environment is a uuid."""
    pipeline = deployment.release.pipeline
    page = f"{SITE}/{repository.full_name}/addon/pipelines/home#!/results/{pipeline.build_number}"
    commit = commit_reference(repository.full_name, pipeline.commit.sha)
    release: Json = {
        "type": "deployment_release",
        "uuid": deployment.release.uuid,
        "key": f"pipelines-{pipeline.uuid}",
        "name": f"#{pipeline.build_number}",
        "url": page,
        "pipeline": {"type": "pipeline", "uuid": pipeline.uuid},
        "commit": commit,
    }
    state: Json = {
        "type": f"deployment_state_{deployment.state.lower()}",
        "name": deployment.state,
        "status": {},
    }
    if deployment.status is not None:
        kind = f"deployment_state_completed_{deployment.status.lower()}"
        state["status"] = {"type": kind, "name": deployment.status}
    rendered: Json = {
        "type": "deployment",
        "uuid": deployment.uuid,
        "key": f"steps-{deployment.step}",
        "step": {"uuid": deployment.step},
        "environment": {"uuid": deployment.environment.uuid},
        "version": deployment.version,
        "commit": commit,
        "state": state,
        "release": release,
        "deployable": release | {"created_on": nano(deployment.release.created_on, 0)},
    }
    if deployment.state != "UNDEPLOYED":
        state["url"] = f"{page}/steps/{quote(deployment.step)}"
    for target, name, at in (
        (state, "started_on", deployment.started_on),
        (state, "completed_on", deployment.completed_on),
        (rendered, "last_update_time", deployment.updated_on),
    ):
        if at is not None:
            target[name] = nano(at, 0)
    return rendered
