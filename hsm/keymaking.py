"""What a key ceremony does, within the process that ``hsm.ceremony`` starts for it."""

import json
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, Mechanism, TokenFlag

from hsm.ceremony import TokenReport, TokenState
from hsm.cryptoki import Cryptoki
from hsm.errors import HSMError, InventoryMismatch, TokenUnavailable
from hsm.inventory import (
    OF_EARLIER_VERSION,
    P256_PARAMETERS,
    SECRET_BYTES,
    KeySpec,
    ObjectSpec,
    added_later,
    audit,
    keys_of,
    to_pkcs11,
)
from hsm.keys import Inventory
from hsm.lock import token_lock
from hsm.session import find_token, log_in, read_pin
from hsm.settings import TokenSettings
from hsm.token import Token

PIN_BYTES = 16

_SOFTHSM_CONF = """\
directories.tokendir = {tokens}
objectstore.backend = file
objectstore.umask = 0077
log.level = ERROR
slots.removable = false
"""


def initialise_token(settings: TokenSettings) -> bool:
    """See ``hsm.ceremony.initialise_token``."""
    if settings.conf_path is None:
        raise HSMError("only SoftHSM tokens are made here: no configuration file is set")
    tokens = settings.conf_path.parent / "tokens"
    tokens.mkdir(parents=True, exist_ok=True, mode=0o700)
    so_pin_file = settings.pin_file.with_suffix(".so")
    _write_once(settings.conf_path, _SOFTHSM_CONF.format(tokens=tokens), 0o600)
    _write_once(settings.pin_file, secrets.token_hex(PIN_BYTES), 0o400)
    _write_once(so_pin_file, secrets.token_hex(PIN_BYTES), 0o400)
    with token_lock(settings.pin_file):
        token = find_token(settings, patient=False)
        if token is not None and token.flags & TokenFlag.USER_PIN_INITIALIZED:
            return False
        so_pin = read_pin(so_pin_file)
        if token is None:
            free = next(
                slot
                for slot in pkcs11.lib(str(settings.module)).get_slots(token_present=True)
                if not slot.get_token().flags & TokenFlag.TOKEN_INITIALIZED
            )
            Cryptoki(settings.module).init_token(free.slot_id, so_pin.encode(), settings.token_label)
            # SoftHSM gives the new token another slot.
            pkcs11.unload(str(settings.module))
            token = find_token(settings)
        if token is None:
            raise TokenUnavailable(f"the token {settings.token_label!r} was made but is not found")
        session = token.open(rw=True, so_pin=so_pin)
        session.init_pin(read_pin(settings.pin_file))
        session.close()
    return True


def status(settings: TokenSettings, inventory: Inventory) -> TokenReport:
    """See ``hsm.ceremony.status``."""
    needed = [path for path in (settings.conf_path, settings.pin_file) if path is not None]
    gone = [f"there is no file {path}" for path in needed if not path.exists()]
    if gone:
        return _report(settings, inventory, TokenState.ABSENT, gone)
    with token_lock(settings.pin_file):
        token = find_token(settings, patient=False)
        if token is None or not token.flags & TokenFlag.USER_PIN_INITIALIZED:
            missing = f"there is no token {settings.token_label!r} with a user PIN"
            return _report(settings, inventory, TokenState.ABSENT, [missing])
        session = log_in(settings)
        return _look(session, settings, inventory)


def initialise(settings: TokenSettings, inventory: Inventory) -> TokenReport:
    """See ``hsm.ceremony.initialise``."""
    with token_lock(settings.pin_file):
        session = log_in(settings, writing=True)
        found = _look(session, settings, inventory)
        if found.state is TokenState.COMPLETE:
            return found
        missing = keys_of(inventory)
        if found.state is TokenState.REFUSED:
            broken = _broken_objects(settings)
            missing = () if broken else added_later(session, Cryptoki(settings.module), inventory)
            if not missing:
                raise InventoryMismatch("; ".join([*found.findings, advice(settings)]))
        for key in missing:
            _make(session, key)
        made = _look(session, settings, inventory)
        if made.state is not TokenState.COMPLETE:
            raise InventoryMismatch("; ".join([*made.findings, advice(settings)]))
    return _report(settings, inventory, TokenState.COMPLETE, [], made=True)


def advice(settings: TokenSettings) -> str:
    """What to do about a token that is refused."""
    place = "" if settings.conf_path is None else f" (folder {settings.conf_path.parent / 'tokens'}, and its PIN files)"
    return (
        f"if the ceremony on token {settings.token_label!r} was interrupted and no citizen has a key under it yet, "
        f"destroy the token{place} and begin again with `rubrica hsm init`; if it was in service, restore its backup"
    )


def _look(session: pkcs11.Session, settings: TokenSettings, inventory: Inventory) -> TokenReport:
    cryptoki = Cryptoki(settings.module)
    if not list(session.get_objects({Attribute.TOKEN: True})) and not _broken_objects(settings):
        return _report(settings, inventory, TokenState.EMPTY, [])
    findings = [*_broken_objects(settings), *audit(session, cryptoki, keys_of(inventory))]
    if added_later(session, cryptoki, inventory):
        findings.append(OF_EARLIER_VERSION)
    if not findings:
        try:
            Token(session, cryptoki, inventory, settings.module).check()
        except InventoryMismatch as exc:
            findings = [str(exc)]
    return _report(settings, inventory, TokenState.REFUSED if findings else TokenState.COMPLETE, findings)


def _broken_objects(settings: TokenSettings) -> list[str]:
    # A process killed while SoftHSM writes leaves an empty file, which SoftHSM itself passes over in silence.
    if settings.conf_path is None:
        return []
    files = (settings.conf_path.parent / "tokens").glob("*/*.object")
    return [f"{path.name}: an empty object file" for path in files if path.stat().st_size == 0]


def _make(session: pkcs11.Session, key: KeySpec) -> None:
    if len(key.objects) == 1:
        _make_secret(session, key.objects[0])
        return
    private, public = key.objects
    curve = session.create_domain_parameters(pkcs11.KeyType.EC, {Attribute.EC_PARAMS: P256_PARAMETERS}, local=True)
    curve.generate_keypair(
        store=True, public_template=to_pkcs11(public.template), private_template=to_pkcs11(private.template)
    )


def _make_secret(session: pkcs11.Session, spec: ObjectSpec) -> None:
    is_aes = spec.template[Attribute.KEY_TYPE] == pkcs11.KeyType.AES
    key_type = pkcs11.KeyType.AES if is_aes else pkcs11.KeyType.GENERIC_SECRET
    mechanism = Mechanism.AES_KEY_GEN if is_aes else Mechanism.GENERIC_SECRET_KEY_GEN
    session.generate_key(key_type, 8 * SECRET_BYTES, store=True, mechanism=mechanism, template=to_pkcs11(spec.template))


def _report(
    settings: TokenSettings, inventory: Inventory, state: TokenState, findings: Sequence[str], *, made: bool = False
) -> TokenReport:
    labels = tuple(key.label for key in keys_of(inventory))
    return TokenReport(settings.token_label, inventory, state, labels, tuple(findings), made)


def _write_once(path: Path, text: str, mode: int) -> None:
    """Write a new file whole or not at all; one that exists stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    # A link, unlike a rename, never takes the place of what another ceremony has written meanwhile.
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def main(arguments: Sequence[str]) -> None:
    """Do what ``hsm.ceremony`` asks, and print the outcome as one line of JSON."""
    action, settings_json, inventory_name = arguments
    settings, inventory = TokenSettings.from_json(settings_json), Inventory(inventory_name)
    try:
        match action:
            case "initialise-token":
                answer = json.dumps(initialise_token(settings))
            case "initialise":
                answer = initialise(settings, inventory).to_json()
            case _:
                answer = status(settings, inventory).to_json()
    except HSMError as exc:
        sys.stdout.write(json.dumps(["failed", type(exc).__name__, str(exc)]))
    except pkcs11.PKCS11Error as exc:
        sys.stdout.write(json.dumps(["failed", "HSMError", f"the token failed ({type(exc).__name__})"]))
    else:
        sys.stdout.write(json.dumps(["done", answer]))


if __name__ == "__main__":
    main(sys.argv[1:])
