"""Builds the httpx client, and keeps httpx from logging URLs and headers."""

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
    """Suppresses the logs of httpx within the block: it logs whole URLs at INFO, httpcore headers at DEBUG."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_let_through)  # adding the same filter again has no effect
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


LOCATION = "x-dx-location"
"""The header that `Location` is moved to."""


async def _keep_location(response: httpx.Response) -> None:
    """Hides redirects from httpx: it parses `Location` even where it does not follow, and fails on an invalid one."""
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
    """The certificate authorities, loaded once: loading takes longer than ten requests."""
    return httpx.create_ssl_context()


def build(timeouts: Timeouts, *, max_in_flight: int, encrypted: bool) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight, keepalive_expiry=30.0)
    return httpx.AsyncClient(
        headers={"User-Agent": user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"},
        timeout=timeouts.for_httpx(),
        limits=limits,
        # A session cookie of one credential must not authenticate another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        event_hooks={"response": [_keep_location]},
        # Plain HTTP, allowed to loopback only, needs no certificate authorities.
        verify=_authorities() if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        # A proxy from the environment gets only requests that it cannot read.
        trust_env=encrypted,
    )
