"""Checks the secret keys before a command uses them."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dx_dagster.settings import Settings


def require_keys(url: str, settings: "Settings") -> None:
    """Warns of stored secrets that no key decrypts.

    Raises:
        VaultError: the keys decrypt none of them.
    """
    from dx_dagster.warehouse.connections import keys

    if warning := keys.check(url, settings):
        print(warning, file=sys.stderr, flush=True)
