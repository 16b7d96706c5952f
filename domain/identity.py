"""The identity token: what the core tells the edge about a citizen who logged in (claims of OpenID Connect Core §2).

It says who by a pseudonym that is this audience's own, how surely, and when; it never says what may be signed.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from domain import jws
from domain.assurance import LoA
from domain.clock import to_epoch_seconds

ISSUER = "rubrica"
TOKEN_TYPE = "identity+jwt"  # noqa: S105 - a name, no secret
TOKEN_LIFE = timedelta(seconds=120)
"""Time enough to go from the gate to the edge."""


class IdentityInvalid(jws.JWSInvalid):
    """Not an identity token of the core for this audience and this login, or over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdentity:
    """A login that the core vouches for; only ``verify`` makes one from a token."""

    session_id: str
    """Name of the core's record of this login."""
    pid: str
    """The citizen's pseudonym for this audience, hexadecimal."""
    loa: LoA
    methods: tuple[str, ...]
    """What proved the citizen, for example ``access-code`` and ``sms``."""
    authenticated: datetime
    """UTC."""


def claims_of(identity: VerifiedIdentity, *, audience: str, nonce: str, now: datetime) -> dict[str, object]:
    """The claims that the core signs."""
    return {
        "iss": ISSUER,
        "aud": audience,
        "sub": identity.pid,
        "nonce": nonce,
        "sid": identity.session_id,
        "acr": identity.loa.value,
        "amr": list(identity.methods),
        "auth_time": to_epoch_seconds(identity.authenticated),
        "iat": to_epoch_seconds(now),
        "exp": to_epoch_seconds(now + TOKEN_LIFE),
    }


def verify(token: str, key: ec.EllipticCurvePublicKey, *, audience: str, nonce: str, now: datetime) -> VerifiedIdentity:
    """Check a token at the edge that asked for it.

    Args:
        token: Compact ES256 JWS.
        key: The core's TOK key, pinned.
        audience: Who asks; a token for another is refused.
        nonce: Drawn by the asker for this browser and this login, and used once: a replayed token finds it gone.
        now: UTC.

    Raises:
        IdentityInvalid: Any of it does not hold.
    """
    try:
        claims = jws.verify(token, key)
        header = jws.unverified_header(token)
    except jws.JWSInvalid as error:
        raise IdentityInvalid(str(error)) from None
    # TOK signs receipts and statements too: the type keeps them apart (RFC 8725 §3.11).
    if header.get("typ") != TOKEN_TYPE or claims.get("iss") != ISSUER:
        raise IdentityInvalid("this is no identity token of the core")
    if claims.get("aud") != audience or not _same(claims.get("nonce"), nonce):
        raise IdentityInvalid("the token is for another audience or another login")
    return _identity(claims, now)


def _identity(claims: Mapping[str, Any], now: datetime) -> VerifiedIdentity:
    try:
        expires = datetime.fromtimestamp(claims["exp"], UTC)
        identity = VerifiedIdentity(
            session_id=str(claims["sid"]),
            pid=str(claims["sub"]),
            loa=LoA(claims["acr"]),
            methods=tuple(str(method) for method in claims["amr"]),
            authenticated=datetime.fromtimestamp(claims["auth_time"], UTC),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise IdentityInvalid("a claim is missing or malformed") from None
    if now >= expires:
        raise IdentityInvalid("the token is over")
    return identity


def _same(claimed: object, nonce: str) -> bool:
    return isinstance(claimed, str) and bool(nonce) and hmac.compare_digest(claimed.encode(), nonce.encode())
