"""Compact JWS (RFC 7515): ES256 for what is verified, and for what is signed unless the key is RSA."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""P-256, or RSA where the client is registered by a certificate."""

_HALF_BYTES = 32
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)  # RFC 7518 §3.5: as long as the digest


class JWSInvalid(ValueError):
    """Not a token by this key, of this kind, for this purpose."""


def base64url(data: bytes) -> str:
    """Without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unbase64url(text: str) -> bytes:
    """The bytes.

    Raises:
        ValueError: Not base64url.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("not base64url") from None


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], key: PrivateKey) -> str:
    """Make a token: PS256 with an RSA key, ES256 with another."""
    algorithm = "PS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
    signed = ".".join(base64url(_json(part)) for part in ({"alg": algorithm, **header}, claims))
    return f"{signed}.{base64url(_signature(signed.encode(), key))}"


def _signature(signed: bytes, key: PrivateKey) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, _PSS, hashes.SHA256())
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(_HALF_BYTES, "big") + s.to_bytes(_HALF_BYTES, "big")


def verify(token: str, key: ec.EllipticCurvePublicKey, *, kind: str) -> dict[str, Any]:
    """The claims of a token that ``key`` signed.

    Args:
        token: Compact JWS.
        key: Pinned, not taken from the token.
        kind: Its ``typ``, so that a token of one kind never passes for another.

    Raises:
        JWSInvalid: It is not.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        raise JWSInvalid("not a compact JWS")
    try:
        header, claims = (json.loads(unbase64url(part)) for part in parts[:2])
        raw = unbase64url(parts[2])
    except ValueError:
        raise JWSInvalid("not a compact JWS") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise JWSInvalid("not a compact JWS")
    if header.get("alg") != "ES256" or header.get("typ") != kind or len(raw) != 2 * _HALF_BYTES:
        raise JWSInvalid(f"not an ES256 token of type {kind}")
    der = encode_dss_signature(int.from_bytes(raw[:_HALF_BYTES], "big"), int.from_bytes(raw[_HALF_BYTES:], "big"))
    try:
        key.verify(der, ".".join(parts[:2]).encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise JWSInvalid("the signature does not verify") from None
    return claims


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
