"""Renders templates to HTML."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from dx_dagster.api.pages import sessions
from dx_dagster.bitbucket import sentence
from dx_dagster.clock import ago

_TONES = {"verified": "good", "good": "good", "expires soon": "warn", "disabled": "off", "unavailable": "warn"}
_KINDS = {"access_token": "Workspace access token", "api_token": "Atlassian API token with its e-mail address"}
_TYPES = {"bitbucket": "Bitbucket Cloud", "bitbucket_pipelines": "Bitbucket Pipelines", "jira_cloud": "Jira Cloud"}

_STEPS = {"pullrequests": "pull requests", "pull_request_sizes": "sizes of pull requests"}
_SYNCS = {"sync": "by schedule", "reconcile": "nightly"}


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("dx_dagster.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = _moment
    environment.filters["ago"] = _ago
    environment.filters["sentence"] = sentence
    environment.filters["tone"] = lambda state: _TONES.get(state, "bad")
    environment.filters["kind_name"] = _KINDS.__getitem__
    environment.filters["step_name"] = lambda step: _STEPS.get(step, step.replace("_", " "))
    environment.filters["kind_of_sync"] = lambda kind: _SYNCS.get(kind, "by hand")
    environment.filters["span"] = _span
    environment.filters["listed"] = _listed
    environment.filters["breakable"] = lambda name: (
        escape(name).replace(":", Markup(":<wbr>")).replace("_", Markup("_<wbr>"))
    )
    environment.filters["type_name"] = lambda kind: _TYPES.get(kind, kind)
    return environment


def render(request: Request, template: str, *, status: int = 200, csrf_cookie: str = "", **values: Any) -> HTMLResponse:
    """Renders a page. Its forms contain the CSRF token of the session, or of `csrf_cookie` before sign-in."""
    secret = csrf_cookie or sessions.session_token(request)
    known = {"home": "/connections", "next": "", "csrf": sessions.csrf_token(secret), "signed_in": not csrf_cookie}
    return HTMLResponse(_templates().get_template(template).render(known | values), status)


def _moment(value: datetime | None) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if value else "never"


def _ago(value: datetime | None) -> str:
    return "never" if value is None else ago(value)


def _listed(value: object) -> str:
    """A value in a table for people."""
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):  # a share
        return f"{value:.0%}"
    return "-" if value is None or value == "" else str(value)


def _span(seconds: float) -> str:
    if seconds < 100:  # noqa: PLR2004 - seconds up to there
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004
