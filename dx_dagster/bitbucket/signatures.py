"""Signs webhook deliveries and verifies their signatures."""

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr

PREFIX = "sha256="


def sign(body: bytes, secret: SecretStr | str) -> str:
    """The value of `X-Hub-Signature`: HMAC-SHA256 over the raw body, as Bitbucket sends it."""
    key = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    return PREFIX + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def verify(body: bytes, header: str | None, secrets: Iterable[SecretStr | str]) -> bool:
    """Whether the header is the signature by one of the secrets; two are valid while one is being replaced.

    Takes constant time, whichever secret matches and wherever the first wrong character is. An empty secret never
    matches.
    """
    given = (header or "").strip().lower().encode()
    matches = [hmac.compare_digest(sign(body, secret).encode(), given) for secret in secrets if len(secret)]
    return any(matches)
