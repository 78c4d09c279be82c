"""The httpx client underneath: its headers, its limits, and its silence."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version

import httpx

from dx_dagster.bitbucket.retries import Timeouts

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy", "httpcore.socks")

_hushed: ContextVar[bool] = ContextVar("_hushed", default=False)


def _let_through(_: logging.LogRecord) -> bool:
    return not _hushed.get()


@contextmanager
def hushed() -> Iterator[None]:
    """Silence while our requests are under way: httpx logs whole URLs at INFO, httpcore headers at DEBUG."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_let_through)  # a filter that is there already is not added again
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


LOCATION = "x-dx-location"
"""Where `Location` is kept."""


async def _keep_location(response: httpx.Response) -> None:
    """Hide redirects from httpx: it prepares even for those it is not to follow, and an odd address makes it fail."""
    response.headers.pop(LOCATION, None)
    if location := response.headers.pop("location", None):
        response.headers[LOCATION] = location


def user_agent() -> str:
    try:
        return f"dx-dagster/{version('dx-dagster')}"
    except PackageNotFoundError:  # running from a checkout
        return "dx-dagster/0"


@cache
def _authorities() -> ssl.SSLContext:
    """Read once: it takes longer than ten requests, and a run has several clients."""
    return httpx.create_ssl_context()


def build(timeouts: Timeouts, *, max_in_flight: int, encrypted: bool) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight, keepalive_expiry=30.0)
    return httpx.AsyncClient(
        headers={"User-Agent": user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"},
        timeout=timeouts.for_httpx(),
        limits=limits,
        # A session cookie got with one credential must not speak for another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        event_hooks={"response": [_keep_location]},
        # Over plain HTTP there is nobody to vouch for, and it leads to loopback only.
        verify=_authorities() if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        # Through a proxy of the environment only what it cannot read.
        trust_env=encrypted,
    )
