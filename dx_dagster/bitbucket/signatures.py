"""Whether a webhook delivery was signed by someone who knows the hook's secret."""

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
    """Whether any of the secrets (two are valid while one is being replaced) made this header.

    Takes the same time whichever secret fits and wherever the first wrong character is. An empty secret never fits.
    """
    given = (header or "").strip().lower().encode()
    matches = [hmac.compare_digest(sign(body, secret).encode(), given) for secret in secrets if len(secret)]
    return any(matches)
