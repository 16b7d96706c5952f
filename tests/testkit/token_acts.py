"""What tests do to a token by hand, each act in a process of its own: forged keys, known keys, interrupted ceremonies.

``act(settings, name, …)`` runs the function of that name here and returns what it returns.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pkcs11
from asn1crypto import parser as asn1_parser
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from pkcs11 import Attribute, Mechanism, ObjectClass
from pkcs11.constants import DEFAULT

from domain.algorithms import KeyType
from hsm import keymaking
from hsm import token as token_module
from hsm.cryptoki import Cryptoki
from hsm.errors import HSMRefused, InventoryMismatch
from hsm.inventory import (
    KEY_WRAP,
    P256_PARAMETERS,
    KeySpec,
    ObjectSpec,
    Template,
    audit,
    keys_of,
    to_pkcs11,
    unwrap_template,
)
from hsm.keys import WRAPPED_BYTES, Inventory, SealingKey, WrappingKey
from hsm.session import log_in, read_pin
from hsm.settings import TokenSettings
from hsm.token import Token


def act(settings: TokenSettings, name: str, *arguments: Any) -> Any:
    """Run the act ``name`` apart; its answer, as JSON tells it."""
    child = start(settings, name, *arguments)
    answer, complaint = child.communicate(timeout=120)
    assert child.returncode == 0, complaint
    return json.loads(answer)


def start(settings: TokenSettings, name: str, *arguments: Any) -> subprocess.Popen[str]:
    """Start the act ``name`` apart, without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.testkit.token_acts", settings.to_json(), name, json.dumps(arguments)],
        env=settings.child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def connect(settings: TokenSettings) -> dict[str, int]:
    """A plain start-up."""
    token = Token.connect(settings, Inventory.CORE)
    try:
        return {str(key): version for key, version in token.versions().items()}
    finally:
        token.close()


def one_signature(settings: TokenSettings) -> dict[str, str]:
    """An honest signature, in hex, with what it needs to be verified."""
    token = Token.connect(settings, Inventory.CORE)
    pair, digest = token.generate(WrappingKey.CITIZEN, KeyType.P256), token.random(32)
    (signature,) = token.sign(pair.wrapped, pair.spki, [digest], kek_version=1)
    token.close()
    return {"spki": pair.spki.hex(), "digest": digest.hex(), "signature": signature.hex()}


def wrapped_lengths(settings: TokenSettings, key_type: str, count: int) -> dict[str, list[int]]:
    """Lengths of newborn blobs, as they come and as they are given out."""
    token = Token.connect(settings, Inventory.CORE)
    born = [len(token._generate(WrappingKey.CITIZEN, KeyType(key_type)).wrapped) for _ in range(count)]
    given = [len(token.generate(WrappingKey.CITIZEN, KeyType(key_type)).wrapped) for _ in range(count)]
    refused = 0
    WRAPPED_BYTES[KeyType.P256] = 81
    try:
        token.generate(WrappingKey.CITIZEN, KeyType.P256)
    except HSMRefused:
        refused = 1
    token.close()
    return {"born": born, "given": given, "refused": [refused]}


def destroy(settings: TokenSettings, label: str) -> int:
    """Destroy every object of that label."""
    session = log_in(settings, writing=True)
    objects = list(session.get_objects({Attribute.LABEL: label}))
    for item in objects:
        item.destroy()
    return len(objects)


def add(settings: TokenSettings, label: str, like: str) -> None:
    """One more key, made like an honest one but under another label."""
    session = log_in(settings, writing=True)
    spec = _spec(like)
    objects = tuple(
        ObjectSpec(item.object_class, {**item.template, Attribute.LABEL: label}, {}) for item in spec.objects
    )
    keymaking._make(session, KeySpec(spec.name, spec.version, objects))


def remake(settings: TokenSettings, label: str, changes: Mapping[str, Any]) -> None:
    """Replace a key by one whose attributes differ; ``None`` leaves an attribute out."""
    session = log_in(settings, writing=True)
    for item in session.get_objects({Attribute.LABEL: label}):
        item.destroy()
    _make_changed(session, _spec(label), {Attribute[name]: value for name, value in changes.items()})


def import_known(settings: TokenSettings, label: str) -> None:
    """Replace a MAC key by one whose value the attacker knows, every settable attribute right."""
    session = log_in(settings, writing=True)
    for item in session.get_objects({Attribute.LABEL: label}):
        item.destroy()
    template = {**to_pkcs11(_spec(label).objects[0].template), Attribute.CLASS: ObjectClass.SECRET_KEY}
    del template[Attribute.VALUE_LEN]
    session.create_object({Attribute.VALUE: b"known to the attacker".ljust(32), **template})


def swap_public_key(settings: TokenSettings, label: str) -> None:
    """Put another pair's public half beside the private key, its birth on the token included."""
    session = log_in(settings, writing=True)
    for item in session.get_objects({Attribute.LABEL: label, Attribute.CLASS: ObjectClass.PUBLIC_KEY}):
        item.destroy()
    private, public = _spec(label).objects
    curve = session.create_domain_parameters(pkcs11.KeyType.EC, {Attribute.EC_PARAMS: P256_PARAMETERS}, local=True)
    _, other = curve.generate_keypair(
        store=True, public_template=to_pkcs11(public.template), private_template=to_pkcs11(private.template)
    )
    other.destroy()


def audit_every_loosened_attribute(settings: TokenSettings, inventory: str) -> dict[str, list[str]]:
    """Make each key anew with each single attribute changed; what the audit says of each."""
    session = log_in(settings, writing=True)
    cryptoki = Cryptoki(settings.module)
    keys = keys_of(Inventory(inventory))
    found: dict[str, list[str]] = {}
    for spec in keys:
        for position, item in enumerate(spec.objects):
            for number, (attribute, value) in enumerate(_loosened(item.template)):
                for old in session.get_objects({Attribute.LABEL: spec.label}):
                    old.destroy()
                case = f"{spec.label} {item.object_class.name} {attribute.name} {number}"
                try:
                    _make_changed(session, spec, {attribute: value}, position=position)
                except pkcs11.PKCS11Error as exc:
                    found[case] = [f"the token does not make it: {type(exc).__name__}"]
                else:
                    found[case] = audit(session, cryptoki, keys)
        for old in session.get_objects({Attribute.LABEL: spec.label}):
            old.destroy()
        keymaking._make(session, spec)
    assert not audit(session, cryptoki, keys)
    return found


def connect_without_audit(settings: TokenSettings) -> str:
    """Start with an audit that sees nothing: what the proof by an evil unwrap says then."""
    setattr(token_module, "audit", lambda *_: [])  # noqa: B010 - patched on purpose
    try:
        Token.connect(settings, Inventory.CORE).close()
    except InventoryMismatch as exc:
        return str(exc)
    return "accepted"


def evil_unwraps(settings: TokenSettings) -> dict[str, str]:
    """Unwrap keys with each attribute against the template, wrap an unwrapped one again, and loosen the KEK."""
    session = log_in(settings, writing=True)
    token = Token(session, Cryptoki(settings.module), Inventory.CORE, settings.module)
    token.check()
    outcome: dict[str, str] = {}
    for kek in WrappingKey:
        pair = token.generate(kek, KeyType.P256)
        wrapping_key = token._key(kek, ObjectClass.SECRET_KEY, None)
        honest = {
            **unwrap_template(kek),
            **dict.fromkeys((Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT),
        }
        unwrap = partial(
            wrapping_key.unwrap_key, ObjectClass.PRIVATE_KEY, pkcs11.KeyType.EC, pair.wrapped, mechanism=KEY_WRAP
        )
        for attribute, right in unwrap_template(kek).items():
            evil = {**honest, attribute: not right}
            outcome[f"{kek} {attribute.name}"] = _attempt(partial(unwrap, template=evil))
        key = unwrap(template=honest)
        outcome[f"{kek} wrap again"] = _attempt(partial(wrapping_key.wrap_key, key, mechanism=KEY_WRAP))
        outcome[f"{kek} read"] = _attempt(partial(key.__getitem__, Attribute.VALUE))
        outcome[f"{kek} loosen"] = _attempt(partial(wrapping_key.__setitem__, Attribute.DECRYPT, True))  # noqa: FBT003 - a value
        outcome[f"{kek} copy"] = _attempt(partial(wrapping_key.copy, {Attribute.DECRYPT: True}))
    token.close()
    return outcome


def against_cryptography(settings: TokenSettings) -> dict[str, bool]:
    """Mechanisms and layouts with keys known to both sides: the token's answer against cryptography's."""
    session = log_in(settings)
    known = bytes(range(32))
    outcome: dict[str, bool] = {}

    mac_key: Any = session.create_object(_known(known, pkcs11.KeyType.GENERIC_SECRET, Attribute.SIGN))
    reference = hmac.HMAC(known, hashes.SHA256())
    reference.update(b"message")
    outcome["HMAC-SHA256"] = reference.finalize() == mac_key.sign(b"message", mechanism=Mechanism.SHA256_HMAC)

    sealing_key = session.create_object(_known(known, pkcs11.KeyType.AES, Attribute.ENCRYPT, Attribute.DECRYPT))
    token = Token(session, Cryptoki(settings.module), Inventory.CORE, settings.module)
    token._versions = {SealingKey.COLUMNS: 1}
    token._keys = {("K_col_1", ObjectClass.SECRET_KEY): sealing_key}
    sealed = token.seal(b"plaintext", b"column")
    outcome["GCM seal"] = AESGCM(known).decrypt(sealed[:12], sealed[12:], b"column") == b"plaintext"
    theirs = bytes(12) + AESGCM(known).encrypt(bytes(12), b"plaintext", b"column")
    outcome["GCM open"] = token.open(theirs, b"column", version=1) == b"plaintext"

    token._versions[WrappingKey.CITIZEN] = 1
    kek = session.create_object(_known(known, pkcs11.KeyType.AES, Attribute.WRAP, Attribute.UNWRAP))
    token._keys["KEK_1", ObjectClass.SECRET_KEY] = kek
    for key_type in KeyType:
        pair = token.generate(WrappingKey.CITIZEN, key_type)
        unwrapped = aes_key_unwrap_with_padding(known, pair.wrapped)
        # SoftHSM fills with zeros up to eight bytes before it wraps; the DER ends before them.
        _, _, _, header, content, _ = asn1_parser.parse(unwrapped)
        der, filling = unwrapped[: len(header) + len(content)], unwrapped[len(header) + len(content) :]
        outcome[f"PKCS#8 {key_type}"] = len(filling) < len(bytes(8)) and not any(filling)
        private = serialization.load_der_private_key(der, None)
        spki = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        outcome[f"AES-KWP {key_type}"] = spki == pair.spki
        digest = b"\x5a" * 32
        (signature,) = token.sign(pair.wrapped, pair.spki, [digest], kek_version=1)
        prehashed = utils.Prehashed(hashes.SHA256())
        if isinstance(private, rsa.RSAPrivateKey):
            outcome["RS256 is deterministic"] = signature == private.sign(digest, padding.PKCS1v15(), prehashed)
        elif isinstance(private, ec.EllipticCurvePrivateKey):
            private.public_key().verify(signature, digest, ec.ECDSA(prehashed))
            outcome["ES256 verifies"] = True
    # RFC 5649 section 6: the 20-octet example, unwrapped (for its wrapping see the filling above).
    rfc_kek = bytes.fromhex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
    rfc_key = bytes.fromhex("c37b7e6492584340bed12207808941155068f738")
    rfc_wrapped = bytes.fromhex("138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a")
    wrapper: Any = session.create_object(_known(rfc_kek, pkcs11.KeyType.AES, Attribute.WRAP, Attribute.UNWRAP))
    readable = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
    unwrapped_key = wrapper.unwrap_key(
        ObjectClass.SECRET_KEY, pkcs11.KeyType.GENERIC_SECRET, rfc_wrapped, mechanism=KEY_WRAP, template=readable
    )
    outcome["RFC 5649"] = unwrapped_key[Attribute.VALUE] == rfc_key
    return outcome


def ceremony_killed_after(settings: TokenSettings, keys_made: int) -> None:
    """A key ceremony that is killed when it has made so many keys."""
    make = keymaking._make
    left = [keys_made]

    def make_or_die(session: pkcs11.Session, key: KeySpec) -> None:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        make(session, key)

    keymaking._make = make_or_die
    keymaking.initialise(settings, Inventory.CORE)


def token_making_killed(settings: TokenSettings) -> None:
    """The making of a token that is killed between the token and its user PIN."""

    def read_pin_or_die(path: Path) -> str:
        if path.suffix != ".so":
            os.kill(os.getpid(), signal.SIGKILL)
        return read_pin(path)

    setattr(keymaking, "read_pin", read_pin_or_die)  # noqa: B010 - patched on purpose
    keymaking.initialise_token(settings)


def _known(value: bytes, key_type: pkcs11.KeyType, *uses: Attribute) -> dict[Attribute, Any]:
    return {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: key_type,
        Attribute.VALUE: value,
        Attribute.TOKEN: False,
        **dict.fromkeys(uses, True),
    }


def _spec(label: str) -> KeySpec:
    return next(spec for inventory in Inventory for spec in keys_of(inventory) if spec.label == label)


def _loosened(template: Template) -> list[tuple[Attribute, Any]]:
    changes: list[tuple[Attribute, Any]] = [
        (attribute, not value) for attribute, value in template.items() if isinstance(value, bool)
    ]
    if Attribute.ALLOWED_MECHANISMS in template:
        changes += [(Attribute.ALLOWED_MECHANISMS, (Mechanism.SHA_1,)), (Attribute.ALLOWED_MECHANISMS, None)]
    if Attribute.VALUE_LEN in template:
        changes.append((Attribute.VALUE_LEN, 16))
    honest = template.get(Attribute.UNWRAP_TEMPLATE)
    if isinstance(honest, Mapping):
        changes.append((Attribute.UNWRAP_TEMPLATE, None))
        for inner, flag in honest.items():
            changes.append((Attribute.UNWRAP_TEMPLATE, {**honest, inner: not flag}))
            less = {kept: value for kept, value in honest.items() if kept is not inner}
            changes.append((Attribute.UNWRAP_TEMPLATE, less))
    return changes


def _make_changed(
    session: pkcs11.Session, spec: KeySpec, changes: Mapping[Attribute, Any], *, position: int = 0
) -> None:
    objects = list(spec.objects)
    item = objects[position]
    template = {
        attribute: changes.get(attribute, value)
        for attribute, value in item.template.items()
        if changes.get(attribute, value) is not None
    }
    objects[position] = ObjectSpec(item.object_class, template, {})
    keymaking._make(session, KeySpec(spec.name, spec.version, tuple(objects)))


def _attempt(action: Callable[[], Any]) -> str:
    try:
        action()
    except pkcs11.PKCS11Error as exc:
        return type(exc).__name__
    return "succeeded"


if __name__ == "__main__":
    settings_json, act_name, arguments_json = sys.argv[1:]
    result = globals()[act_name](TokenSettings.from_json(settings_json), *json.loads(arguments_json))
    sys.stdout.write(json.dumps(result))
