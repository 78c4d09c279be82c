"""The address of the receiver, at which Bitbucket delivers."""

from contextlib import suppress
from urllib.parse import urlsplit

from dx_dagster.settings import Settings, SettingsError, is_loopback

PATH = "/webhooks/bitbucket"


def receiver(settings: Settings) -> str:
    """The receiver's public address.

    Raises:
        SettingsError: DX_PUBLIC_URL is missing, or Bitbucket cannot safely deliver there.
    """
    url = (settings.public_url or "").rstrip("/")
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in {"https", "http"}:
        raise SettingsError(
            "DX_PUBLIC_URL must be the address at which Bitbucket reaches this installation, such as "
            "https://dx.example.com; `dx-dagster serve` or `up` must answer behind it."
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise SettingsError(
            "DX_PUBLIC_URL must begin with https: deliveries contain titles and descriptions of pull requests."
        )
    return url + PATH


def known_receiver(settings: Settings) -> str | None:
    """The receiver's public address; None where the settings name none that Bitbucket can safely use."""
    with suppress(SettingsError):
        return receiver(settings)
    return None
