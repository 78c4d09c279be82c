"""The one origin that a token may be sent to."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from urllib.parse import unquote

import httpx

from dx_dagster.bitbucket.errors import RefusedOrigin
from dx_dagster.settings import is_loopback

Params: TypeAlias = Mapping[str, str | int | Sequence[str]]

_ODD = re.compile(r"[\\\s]")
_PORTS = {"http": 80, "https": 443}


class Origin:
    """Scheme, host, port and base path of the API; refuses URLs of any other origin.

    Raises:
        ValueError: a token may not be sent to the base URL.
    """

    def __init__(self, base_url: str) -> None:
        url = httpx.URL(base_url.rstrip("/"))
        if url.scheme not in _PORTS or not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError("the base URL must look like https://api.bitbucket.org/2.0")
        if url.scheme == "http" and not is_loopback(url.host):
            raise ValueError(f"plain http would send the token unencrypted to {url.host}")
        self._base = url
        self._base_path = url.raw_path.decode("ascii").rstrip("/")

    @property
    def encrypted(self) -> bool:
        return self._base.scheme == "https"

    def resolve(self, reference: str, params: Params | None = None) -> httpx.URL:
        """The URL of a path below the base ("/repositories/acme"), or of an absolute link to the same origin.

        `params` replace the query of a link.

        Raises:
            RefusedOrigin: the URL is of another origin.
        """
        if reference.startswith("/") and not reference.startswith("//"):
            return self._checked(str(self._base).rstrip("/") + reference, params)
        if "://" in reference:
            return self._checked(reference, params)
        raise RefusedOrigin("Refused a link that is neither a path nor an absolute URL of the API")

    def redirected(self, current: httpx.URL, location: str) -> httpx.URL:
        """The target of a redirect; `location` may be relative.

        Raises:
            RefusedOrigin: the target is of another origin.
        """
        try:
            return self._checked(str(current.join(location)))
        except httpx.InvalidURL:
            raise RefusedOrigin("Refused a redirect to an invalid URL") from None

    def kind_path(self, url: httpx.URL) -> str:
        """The path below the base, percent-encoded."""
        return url.raw_path.decode("ascii").partition("?")[0].removeprefix(self._base_path)

    def _checked(self, address: str, params: Params | None = None) -> httpx.URL:
        # URL parsers disagree on where the host ends if an address contains these.
        if _ODD.search(address):
            raise RefusedOrigin("Refused a URL that contains a backslash or a space")
        try:
            # httpx parses a URL again at each copy: copies cost measurable time over a thousand requests.
            url = httpx.URL(address, params={**params}) if params else httpx.URL(address)
            url = url.copy_with(fragment=None) if url.fragment else url
        except httpx.InvalidURL:
            raise RefusedOrigin("Refused an invalid URL") from None
        if url.userinfo or _site(url) != _site(self._base):
            raise RefusedOrigin(f"Refused to go to {_shown(url)}: the token is for {_shown(self._base)} only")
        if not self._is_below(url):
            raise RefusedOrigin(f"Refused to go to {url.path}: it is not below {self._base_path or '/'}")
        return url

    def _is_below(self, url: httpx.URL) -> bool:
        path = url.raw_path.decode("ascii").partition("?")[0]
        # A server may decode "%2e%2e" before it resolves the path.
        climbs = any(part in {".", ".."} for part in unquote(unquote(path)).replace("\\", "/").split("/"))
        return path.startswith(f"{self._base_path}/") and not climbs


def _site(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port or _PORTS.get(url.scheme)


def _shown(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"
