"""Secrets at rest: Fernet, several keys for rotation, each ciphertext bound to the row that holds it."""

import hmac
import json
import logging
import os
import stat
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from dx_dagster.settings import Settings, SettingsError, make_home, private_draft

KEY_FILE = "secret_keys"
_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO

_log = logging.getLogger(__name__)


class VaultError(SettingsError):
    """The keys do not decrypt a stored secret; the message says what to do."""


class Vault:
    """Encrypts with the first key and decrypts with any.

    The first encryption makes the file of generated keys. Merely decrypting never does: a new key would be in the way
    of the right one, which somebody may bring back.

    Attributes:
        source: where the keys come from, for messages.
    """

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self.source = "DX_SECRET_KEYS" if settings.secret_keys else str(settings.home / KEY_FILE)
        given = settings.secret_keys.get_secret_value() if settings.secret_keys else _generated(settings.home)
        self._keys = None if given is None else self._parsed(given)

    @classmethod
    def of(cls, settings: Settings) -> "Vault":
        """The vault of an installation; its keys come from DX_SECRET_KEYS, or from a file made once under DX_HOME.

        Raises:
            VaultError: a key is no Fernet key.
        """
        return cls(settings)

    def _parsed(self, given: str) -> MultiFernet:
        try:
            return MultiFernet([Fernet(key) for key in _split(given)])
        except ValueError:
            back = "" if self.source == "DX_SECRET_KEYS" else " Bring the file back from a backup."
            raise VaultError(
                f"{self.source} holds something that is no Fernet key: each key is 32 bytes in URL-safe base64, and "
                f"several are separated by commas.{back} Make one with: python3 -c 'import base64, os; "
                "print(base64.urlsafe_b64encode(os.urandom(32)).decode())'."
            ) from None

    @property
    def is_empty(self) -> bool:
        """Whether there are no keys yet."""
        return self._keys is None

    def lock(self, secret: SecretStr, row: str) -> str:
        """The ciphertext of a secret that belongs to `row`."""
        if self._keys is None:
            self._keys = self._parsed(_generate(self._home))
        return self._keys.encrypt(json.dumps([row, secret.get_secret_value()]).encode()).decode()

    def opens(self, ciphertext: str, row: str) -> bool:
        """Whether a key decrypts the secret."""
        try:
            self.unlock(ciphertext, row)
        except VaultError:
            return False
        return True

    def unlock(self, ciphertext: str, row: str) -> SecretStr:
        """The secret of `row`.

        Raises:
            VaultError: no key opens it, or it was made for another row.
        """
        if self._keys is None:
            raise VaultError(
                f"There are no keys to open the secret of {row}: {self.source} does not exist. Bring that file back, "
                "set DX_SECRET_KEYS to the keys that were in use when it was stored, or add the credential again."
            )
        try:
            bound_to, secret = json.loads(self._keys.decrypt(ciphertext))
        except InvalidToken:
            raise VaultError(
                f"None of the keys opens the secret of {row}. Set DX_SECRET_KEYS to the keys that were in use when it "
                "was stored (the old ones may stand behind a new one), or add the credential again."
            ) from None
        if bound_to != row:
            raise VaultError(f"The stored secret of {row} belongs to {bound_to}: add the credential again.")
        return SecretStr(secret)


def derived(settings: Settings, purpose: str) -> list[SecretStr]:
    """A secret for the purpose from each key, the current one first. Nothing of the key can be found out from it."""
    given = settings.secret_keys.get_secret_value() if settings.secret_keys else _generated(settings.home)
    return [
        SecretStr(hmac.digest(key.encode(), f"dx-dagster {purpose}".encode(), "sha256").hex())
        for key in _split(given or "")
    ]


def has_keys(settings: Settings) -> bool:
    """Whether the installation has keys; otherwise the first encryption makes one."""
    return settings.secret_keys is not None or (settings.home / KEY_FILE).exists()


def renew(settings: Settings) -> bool:
    """Puts a new key before the installation's own keys; returns False where they come from DX_SECRET_KEYS."""
    if settings.secret_keys is not None:
        return False
    make_home(settings.home)
    _write(settings.home, [Fernet.generate_key().decode(), *_own_keys(settings.home)])
    return True


def forget_old_keys(settings: Settings) -> None:
    """Removes all keys but the first two, once every secret is encrypted with the first.

    The second stays, for another process may encrypt with it at this moment.
    """
    if settings.secret_keys is None:
        _write(settings.home, _own_keys(settings.home)[:2])


def _own_keys(home: Path) -> list[str]:
    return _split(_generated(home) or "")


def _split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",") if key.strip()]


def _write(home: Path, keys: list[str]) -> None:
    private_draft(home / KEY_FILE, ",".join(keys)).replace(home / KEY_FILE)


def _generated(home: Path) -> str | None:
    """The installation's own keys; None where there are none yet."""
    path = home / KEY_FILE
    try:
        _keep_private(path)
        return path.read_text()
    except FileNotFoundError:
        return None


def _generate(home: Path) -> str:
    """Makes the installation's first key, unless another process does so at the same time; returns what is there."""
    path = home / KEY_FILE
    make_home(home)
    draft = private_draft(path, Fernet.generate_key().decode())
    try:
        os.link(draft, path)  # only one process wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text()


def _keep_private(path: Path) -> None:
    """Makes the file private again: a copy or a restored backup may have lost its mode.

    Raises:
        VaultError: others can read the file, and we may not change that.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _OF_OTHERS:
        return
    try:
        path.chmod(mode & ~_OF_OTHERS)
    except OSError as error:
        raise VaultError(
            f"Others on this machine can read the keys in {path}, and that cannot be changed ({error.strerror}): have "
            "its owner run chmod 600 on it, or set DX_SECRET_KEYS."
        ) from None
    _log.warning(
        "Others on this machine could read the keys in %s (mode %04o); now its owner alone can. If somebody else may "
        "have read it, run dx-dagster credentials rekey and replace the tokens.",
        path,
        mode,
    )
