"""Seals what a person types so that only the core opens it, in the byte formats of the service's ``docs/protocol.md``.

This is written apart from the service on purpose: two implementations meet in the vectors, not in shared code.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rubrica_client import jws
from rubrica_client.jws import base64url, unbase64url

Part: TypeAlias = "bytes | str | int | Sequence[Part] | None"

SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
ENC_BYTES = 65
NONCE_BYTES = 12
CHANNEL = "sms"


class StatementInvalid(ValueError):
    """The challenge's key is not one that the core vouches for: nothing is sealed to it."""


class AnswerBroken(ValueError):
    """A sealed answer does not open with this browser's secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What the core gave for sealing one secret, after its statement was checked."""

    nonce: bytes
    sap_id: str
    sap_public_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a sealed secret is bound to; absent parts stay ``None``."""

    purpose: str
    subject: str | None = None
    list_sha256: bytes | None = None
    client_id: str | None = None
    challenge_id: str | None = None

    def info(self, sap_id: str, nonce: bytes) -> bytes:
        """HPKE's ``info``."""
        return encode(
            "rubrica/1",
            sap_id,
            nonce,
            self.purpose,
            self.subject,
            self.list_sha256,
            self.client_id,
            CHANNEL,
            self.challenge_id,
        )


def checked_challenge(answer: Mapping[str, Any], token_key: ec.EllipticCurvePublicKey) -> Challenge:
    """A challenge whose key the core vouches for.

    The statement's times are not compared with any clock of ours, which may be wrong or made wrong: the core refuses a
    key that is over.

    Args:
        answer: The gate's JSON.
        token_key: The core's TOK key, pinned.

    Raises:
        StatementInvalid: It does not.
    """
    try:
        claims = jws.verify(str(answer["statement"]), token_key, kind="sap+jwt")
        challenge = Challenge(
            nonce=unbase64url(str(answer["nonce"])),
            sap_id=str(answer["sap_id"]),
            sap_public_key=unbase64url(str(answer["sap_public_key"])),
        )
    except (KeyError, ValueError):
        raise StatementInvalid("the challenge carries no statement of the pinned key") from None
    if claims.get("sap_id") != challenge.sap_id or claims.get("key") != base64url(challenge.sap_public_key):
        raise StatementInvalid("the statement speaks of another key")
    if not all(type(claims.get(name)) is int for name in ("nbf", "exp")):
        raise StatementInvalid("the statement has no times")
    return challenge


def seal(challenge: Challenge, context: Context, *secrets: bytes) -> dict[str, str]:
    """The envelope, as JSON has it, around the encoded ``secrets``."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), challenge.sap_public_key)
    except ValueError:
        raise StatementInvalid("the key is not a point of P-256") from None
    sealed = SUITE.encrypt(encode(*secrets), key, context.info(challenge.sap_id, challenge.nonce))
    return {
        "sap_id": challenge.sap_id,
        "nonce": base64url(challenge.nonce),
        "enc": base64url(sealed[:ENC_BYTES]),
        "ciphertext": base64url(sealed[ENC_BYTES:]),
    }


def open_answer(sealed: bytes, cs: bytes, challenge_id: str) -> bytes:
    """The token of activation or password change, sealed to this browser's secret ``cs``.

    Raises:
        AnswerBroken: Another secret, another challenge, or changed.
    """
    key = derive("answer", cs, challenge_id)
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], encode(challenge_id))
    except (InvalidTag, ValueError):
        raise AnswerBroken("the answer does not open") from None


def derive(label: str, *parts: Part) -> bytes:
    """KDF(label; parts): HKDF-SHA256, empty salt, 32 bytes."""
    return HKDF(SHA256(), 32, salt=None, info=b"rubrica/1/" + label.encode()).derive(encode(*parts))


def encode(*parts: Part) -> bytes:
    """The canonical encoding."""
    encoded = bytearray()
    for part in parts:
        if part is None:
            encoded += b"\xff\xff\xff\xff"
        elif isinstance(part, bytes):
            encoded += len(part).to_bytes(4, "big") + part
        elif isinstance(part, str):
            text = unicodedata.normalize("NFC", part).encode()
            encoded += len(text).to_bytes(4, "big") + text
        elif isinstance(part, int):
            encoded += (8).to_bytes(4, "big") + part.to_bytes(8, "big")
        else:
            encoded += len(part).to_bytes(4, "big") + encode(*part)
    return bytes(encoded)


def list_sha256(items: Sequence[Mapping[str, Any]]) -> bytes:
    """SHA-256(HL) of the items as the gate describes them: what is shown is what gets sealed."""
    encoded = bytearray(len(items).to_bytes(4, "big"))
    for item in items:
        digests: list[Part] = []
        for digest in item["digests"]:
            digests += _digest_parts(digest)
        for reference in item.get("references", ()):
            transforms = [str(name) for name in reference["transforms"]]
            digests += [str(reference["uri"]), str(reference["type"]), transforms, *_digest_parts(reference["digest"])]
        fields: list[Part] = []
        for name in sorted(item["fields"]):
            fields += [name, str(item["fields"][name])]
        encoded += encode(
            str(item["purpose"]),
            str(item["format"]),
            str(item["packaging"]),
            str(item["algorithm"]),
            digests,
            str(item["title"]),
            hashlib.sha256(encode(fields)).digest(),
        )
    return hashlib.sha256(encoded).digest()


def _digest_parts(digest: Mapping[str, Any]) -> list[Part]:
    return [str(digest["algorithm"]), unbase64url(str(digest["value"]))]


def normalized_nif(nif: str) -> str:
    """Upper case, letters and digits only."""
    return "".join(character for character in nif.upper() if character.isalnum())


def normalized_password(password: str) -> bytes:
    """NFKC, then UTF-8."""
    return unicodedata.normalize("NFKC", password).encode()


def normalized_code(code: str) -> bytes:
    """An activation code, access code or PIN: upper case, without hyphens and spaces."""
    return code.upper().replace("-", "").replace(" ", "").encode()
