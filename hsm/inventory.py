"""The keys a token must hold, each attribute of them, and the audit that refuses a token with anything else.

What each key may do is the table "Keys" of the activation protocol. Attributes are set by the ceremony, and read back
there and at every start.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, Session
from pkcs11.attributes import AttributeMapper

from hsm.cryptoki import Cryptoki, PackedTemplate
from hsm.keys import Inventory, MACKey, SealingKey, SigningKey, TokenKey, WrappingKey

# secp256r1, RFC 5480 section 2.1.1.1
P256_PARAMETERS = bytes.fromhex("06082a8648ce3d030107")

SECRET_BYTES = 32

# CKO_VENDOR_DEFINED: none of ours, for an object that does not tell its class.
VENDOR_DEFINED = 0x80000000

ADDED_LATER: Mapping[Inventory, tuple[SigningKey, ...]] = {
    Inventory.CORE: (SigningKey.SEAL, SigningKey.LOG),
    Inventory.PKI: (),
}
"""Keys that tokens of earlier versions lack, oldest first; the ceremony completes such a token by exactly them."""

OF_EARLIER_VERSION = "the token is of an earlier version: `rubrica hsm init` adds what is missing"

# SoftHSM's name for it says PKCS#7 padding, what it does is AES-KWP, RFC 5649.
KEY_WRAP = Mechanism.AES_KEY_WRAP_PAD

Value: TypeAlias = bool | int | bytes | str | tuple[Mechanism, ...] | Mapping[Attribute, bool]
Template: TypeAlias = dict[Attribute, Value]


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """One object of a key (a key pair has two)."""

    object_class: ObjectClass
    template: Template
    """What the ceremony sets, MODIFIABLE last: SoftHSM takes no attribute after it."""
    inborn: Template
    """What the token itself tells of the key's birth: made inside, never outside."""


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One key of the inventory."""

    name: TokenKey
    version: int
    objects: tuple[ObjectSpec, ...]

    @property
    def label(self) -> str:
        """As on the token."""
        return f"{self.name}_{self.version}"


def keys_of(inventory: Inventory) -> tuple[KeySpec, ...]:
    """Every key that a token of this kind holds, in the order in which the ceremony makes them."""
    if inventory is Inventory.PKI:
        authorities = (SigningKey.PKI_ROOT, SigningKey.PKI_CA, SigningKey.PKI_OCSP, SigningKey.PKI_TSA)
        return tuple(_signing_key(name) for name in authorities)
    return (
        _wrapping_key(WrappingKey.CITIZEN),
        _wrapping_key(WrappingKey.SAP),
        *(_mac_key(name) for name in MACKey),
        _sealing_key(SealingKey.COLUMNS),
        _signing_key(SigningKey.TOKENS),
        *(_signing_key(name) for name in ADDED_LATER[Inventory.CORE]),
    )


def unwrap_template(kek: WrappingKey) -> dict[Attribute, bool]:
    """CKA_UNWRAP_TEMPLATE: what a key that is unwrapped by ``kek`` must be, whoever asks."""
    return {
        Attribute.SENSITIVE: True,
        Attribute.SIGN: kek is WrappingKey.CITIZEN,
        Attribute.DERIVE: kek is WrappingKey.SAP,
        Attribute.TOKEN: False,
        Attribute.EXTRACTABLE: False,
        Attribute.DECRYPT: False,
        Attribute.UNWRAP: False,
        Attribute.SIGN_RECOVER: False,
    }


def attribute_mapper() -> AttributeMapper:
    """A mapper that also takes the two attributes which python-pkcs11 cannot set as shipped."""
    mapper = AttributeMapper()
    mapper.register_handler(Attribute.UNWRAP_TEMPLATE, bytes, bytes)
    mapper.register_handler(
        Attribute.ALLOWED_MECHANISMS,
        lambda mechanisms: struct.pack(f"{len(mechanisms)}L", *mechanisms),
        lambda packed: struct.unpack(f"{len(packed) // struct.calcsize('L')}L", packed),
    )
    return mapper


def to_pkcs11(template: Template) -> dict[Attribute, object]:
    """The template as python-pkcs11 takes it, with arrays of attributes packed."""
    return {
        attribute: PackedTemplate({inner: pack(flag) for inner, flag in value.items()})
        if isinstance(value, Mapping)
        else value
        for attribute, value in template.items()
    }


def pack(value: bool | int | bytes | str | tuple[Mechanism, ...]) -> bytes:
    """The bytes of a value in a CK_ATTRIBUTE of this machine."""
    match value:
        case bool():
            return struct.pack("?", value)
        case int():
            return struct.pack("L", value)
        case str():
            return value.encode()
        case tuple():
            return struct.pack(f"{len(value)}L", *value)
        case _:
            return value


def audit(session: Session, cryptoki: Cryptoki, keys: Iterable[KeySpec]) -> list[str]:
    """Compare the token with its inventory.

    Returns:
        A plain sentence for each key outside the inventory, each missing one and each attribute that is off; empty when
        the token is right.
    """
    found: dict[tuple[str, int], list[int]] = {}
    of_session: int = session.handle  # type: ignore[attr-defined]  # python-pkcs11 declares it on the C class only
    for item in session.get_objects({Attribute.TOKEN: True}):
        handle = int(item.handle or 0)
        label = cryptoki.attribute(of_session, handle, Attribute.LABEL) or b""
        object_class = cryptoki.attribute(of_session, handle, Attribute.CLASS) or pack(VENDOR_DEFINED)
        place = (label.decode(errors="backslashreplace"), struct.unpack("L", object_class)[0])
        found.setdefault(place, []).append(handle)
    findings = []
    for key in keys:
        for spec in key.objects:
            handles = found.pop((key.label, int(spec.object_class)), [])
            name = f"{key.label} ({spec.object_class.name.lower().replace('_', ' ')})"
            if len(handles) != 1:
                findings.append(f"{name}: missing" if not handles else f"{name}: there are {len(handles)}")
            for handle in handles:
                expected = {**spec.template, **spec.inborn, Attribute.CLASS: int(spec.object_class)}
                findings += _compare(of_session, cryptoki, handle, name, expected)
    findings += [f"{label or 'an object without label'}: outside the inventory" for label, _ in found]
    return findings


def added_later(session: Session, cryptoki: Cryptoki, inventory: Inventory) -> tuple[KeySpec, ...]:
    """The keys that a token of an earlier version lacks; none where anything else is off, or nothing is missing."""
    keys, later = keys_of(inventory), len(ADDED_LATER[inventory])
    # They came in the order of the list: each earlier version has the beginning of it.
    for missing in range(later + 1):
        if not audit(session, cryptoki, keys[: len(keys) - missing]):
            return keys[len(keys) - missing :]
    return ()


def _compare(session: int, cryptoki: Cryptoki, handle: int, name: str, expected: Template) -> list[str]:
    findings = []
    for attribute, value in expected.items():
        if isinstance(value, Mapping):
            actual = cryptoki.template(session, handle, attribute)
            right = actual == {int(inner): pack(flag) for inner, flag in value.items()}
        else:
            right = cryptoki.attribute(session, handle, attribute) == pack(value)
        if not right:
            findings.append(f"{name}: CKA_{attribute.name} is off")
    return findings


def _may(*uses: Attribute) -> Template:
    every = (Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.SIGN, Attribute.VERIFY)
    return {use: use in uses for use in (*every, Attribute.WRAP, Attribute.UNWRAP, Attribute.DERIVE)}


def _secret(
    name: TokenKey, key_type: KeyType, mechanism: Mechanism, uses: Template, extra: Template | None = None
) -> KeySpec:
    template: Template = {
        Attribute.LABEL: f"{name}_1",
        Attribute.KEY_TYPE: int(key_type),
        Attribute.VALUE_LEN: SECRET_BYTES,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        **uses,
        **(extra or {}),
        Attribute.ALLOWED_MECHANISMS: (mechanism,),
        Attribute.COPYABLE: False,
        Attribute.MODIFIABLE: False,
    }
    return KeySpec(name, 1, (ObjectSpec(ObjectClass.SECRET_KEY, template, dict(_BORN_INSIDE)),))


_BORN_INSIDE: Template = {Attribute.LOCAL: True, Attribute.ALWAYS_SENSITIVE: True, Attribute.NEVER_EXTRACTABLE: True}


def _wrapping_key(name: WrappingKey) -> KeySpec:
    # Both uses, or a newborn key could not be wrapped. DECRYPT would open any blob to whoever holds a session.
    uses = _may(Attribute.WRAP, Attribute.UNWRAP)
    return _secret(name, KeyType.AES, KEY_WRAP, uses, {Attribute.UNWRAP_TEMPLATE: unwrap_template(name)})


def _mac_key(name: MACKey) -> KeySpec:
    return _secret(name, KeyType.GENERIC_SECRET, Mechanism.SHA256_HMAC, _may(Attribute.SIGN))


def _sealing_key(name: SealingKey) -> KeySpec:
    return _secret(name, KeyType.AES, Mechanism.AES_GCM, _may(Attribute.ENCRYPT, Attribute.DECRYPT))


def _signing_key(name: SigningKey) -> KeySpec:
    common: Template = {
        Attribute.LABEL: f"{name}_1",
        Attribute.KEY_TYPE: int(KeyType.EC),
        Attribute.TOKEN: True,
        Attribute.DERIVE: False,
    }
    closed: Template = {Attribute.COPYABLE: False, Attribute.MODIFIABLE: False}
    private: Template = {
        **common,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.SIGN: True,
        Attribute.SIGN_RECOVER: False,
        Attribute.DECRYPT: False,
        Attribute.UNWRAP: False,
        Attribute.ALLOWED_MECHANISMS: (Mechanism.ECDSA,),
        **closed,
    }
    public: Template = {
        **common,
        Attribute.EC_PARAMS: P256_PARAMETERS,
        Attribute.PRIVATE: False,
        Attribute.VERIFY: True,
        Attribute.VERIFY_RECOVER: False,
        Attribute.ENCRYPT: False,
        Attribute.WRAP: False,
        **closed,
    }
    objects = (
        ObjectSpec(ObjectClass.PRIVATE_KEY, private, {**_BORN_INSIDE, Attribute.EC_PARAMS: P256_PARAMETERS}),
        ObjectSpec(ObjectClass.PUBLIC_KEY, public, {Attribute.LOCAL: True}),
    )
    return KeySpec(name, 1, objects)
