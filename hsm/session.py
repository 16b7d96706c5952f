"""Finding a token and logging in to it."""

import os
import time
from pathlib import Path

import pkcs11
from pkcs11.exceptions import PKCS11Error

from hsm.errors import PINRefused, TokenUnavailable
from hsm.inventory import attribute_mapper
from hsm.settings import TokenSettings

# SoftHSM 2.6.1 now and then fails to start beside a process that writes to the same token.
_START_PAUSES_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)

_PIN_ERRORS = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinExpired,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
)


def log_in(settings: TokenSettings, *, writing: bool = False) -> pkcs11.Session:
    """Open a session and log in; only the ceremony writes.

    What may fail for a moment is retried before the login; the login itself never is.

    Raises:
        TokenUnavailable: No such module, token or PIN file.
        PINRefused: The token refused the PIN.
    """
    pin = read_pin(settings.pin_file)
    token = find_token(settings)
    if token is None:
        raise TokenUnavailable(f"there is no token {settings.token_label!r}")
    try:
        return open_session(token, pin, writing=writing)
    except _PIN_ERRORS as exc:
        raise PINRefused(f"the token {settings.token_label!r} refused the PIN in {settings.pin_file}") from exc
    except PKCS11Error as exc:
        raise TokenUnavailable(f"the login at the token {settings.token_label!r} failed") from exc


def open_session(token: pkcs11.Token, pin: str, *, writing: bool) -> pkcs11.Session:
    """The only place where a PIN is tried."""
    return token.open(rw=writing, user_pin=pin, attribute_mapper=attribute_mapper())


def find_token(settings: TokenSettings, *, patient: bool = True) -> pkcs11.Token | None:
    """Load the module and look for the token; unless told otherwise, a failure is tried again for about two seconds.

    Raises:
        TokenUnavailable: The module does not load or goes on failing.
    """
    if settings.conf_path is not None:
        os.environ["SOFTHSM2_CONF"] = str(settings.conf_path)
    module = str(settings.module)
    for pause in (*(_START_PAUSES_SECONDS if patient else ()), None):
        try:
            return pkcs11.lib(module).get_token(token_label=settings.token_label)
        except pkcs11.NoSuchToken:
            if pause is None:
                return None
        except PKCS11Error as exc:
            if pause is None:
                hint = "" if settings.conf_path is None else f"; look at {settings.conf_path} and the folder it names"
                raise TokenUnavailable(f"the PKCS#11 module {module} does not start{hint}") from exc
        pkcs11.unload(module)
        time.sleep(pause)
    return None


def read_pin(path: Path) -> str:
    """The PIN, from a file that only its owner can read.

    Raises:
        TokenUnavailable: There is no such file, or others can read it.
    """
    try:
        mode = path.stat().st_mode
        pin = path.read_text().strip()
    except OSError as exc:
        raise TokenUnavailable(f"the PIN file {path} cannot be read") from exc
    if mode & 0o077:
        raise TokenUnavailable(f"the PIN file {path} must be closed to others (chmod 0400)")
    return pin
