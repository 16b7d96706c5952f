"""Compact JWS (RFC 7515): what TOK signs, what callers sign, what anyone verifies.

The key decides which algorithms there are, never the token: ES256 for an elliptic curve key, RS256 or PS256 for an RSA
key (RFC 8725 §3.1). All of ours sign with ES256; only callers with a certificate may have RSA.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ES256_SIZE_BYTES = 64
ASSERTION_LIMIT_CHARACTERS = 12 * 1024
"""A caller's proof with three certificates in it; what the edge forwards and the core looks at. Together with all other
headers it must stay below 16 KiB, which is where HTTP/1.1 and gRPC stop reading."""

_RSA_PADDINGS: Mapping[str, padding.AsymmetricPadding] = {
    "RS256": padding.PKCS1v15(),
    "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32),  # RFC 7518 §3.5: as long as the digest
}


class JWSInvalid(ValueError):
    """Not a compact JWS by this key."""


def signing_input(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bytes:
    """What is signed: base64url header, a dot, base64url claims; ``alg`` is added."""
    return b".".join(_base64url(_json(part)) for part in ({"alg": "ES256", **header}, claims))


def assemble(signed: bytes, signature_der: bytes) -> str:
    """Put the signature (DER, as an HSM or library gives it) behind what it signs, as r and s of 32 bytes each."""
    return b".".join((signed, _base64url(raw_signature(signature_der)))).decode()


def raw_signature(signature_der: bytes) -> bytes:
    """ECDSA on P-256 as r and s, 32 bytes each (RFC 7518 §3.4)."""
    r, s = decode_dss_signature(signature_der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def unverified_header(token: str) -> dict[str, Any]:
    """The header, to find the key by ``kid``; nothing in it is to be believed.

    Raises:
        JWSInvalid: Not a compact JWS.
    """
    return _parse(token.split(".", 1)[0])


def unverified_claims(token: str) -> dict[str, Any]:
    """The claims, to find whose key to ask; nothing in them is to be believed.

    Raises:
        JWSInvalid: Not a compact JWS.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        raise JWSInvalid("not a compact JWS")
    return _parse(parts[1])


def verify(token: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> dict[str, Any]:
    """The claims of a token that ``key`` signed; expiry and audience are the caller's to check.

    Args:
        token: Compact JWS.
        key: P-256: the token must be ES256; RSA: RS256 or PS256.

    Raises:
        JWSInvalid: Another algorithm, another key, or not a token at all.
    """
    signed, _, signature = token.rpartition(".")
    algorithm = unverified_header(token).get("alg")
    raw = _unbase64url(signature)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            scheme = _RSA_PADDINGS.get(algorithm) if isinstance(algorithm, str) else None
            if scheme is None:
                raise JWSInvalid("the algorithm must be RS256 or PS256")
            key.verify(raw, signed.encode(), scheme, hashes.SHA256())
        else:
            if algorithm != "ES256":
                raise JWSInvalid("the algorithm must be ES256")
            key.verify(_es256_der(raw), signed.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise JWSInvalid("the signature does not verify") from None
    return unverified_claims(token)


def _es256_der(raw: bytes) -> bytes:
    if len(raw) != ES256_SIZE_BYTES:
        raise JWSInvalid("an ES256 signature has 64 bytes")
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def _parse(part: str) -> dict[str, Any]:
    try:
        parsed = json.loads(_unbase64url(part))
    except (ValueError, RecursionError):  # brackets a thousand deep are no JSON of ours
        raise JWSInvalid("not JSON") from None
    if not isinstance(parsed, dict):
        raise JWSInvalid("not a JSON object")
    return parsed


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _unbase64url(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise JWSInvalid("not base64url") from None
