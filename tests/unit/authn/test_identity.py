"""Identity tokens: what the edge believes, and forged twins of it."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from domain import identity, jws
from domain.assurance import LoA
from domain.identity import IdentityInvalid, VerifiedIdentity

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
NONCE = "nonce-of-this-browser-1"
TOLD = VerifiedIdentity(
    session_id="A" * 26,
    pid=hashlib.sha256(b"somebody").hexdigest(),
    loa=LoA.LOW,
    methods=("access-code", "sms"),
    authenticated=NOW,
)


def token(*, key=KEY, kind=identity.TOKEN_TYPE, without="", **changes: object):
    claims = {**identity.claims_of(TOLD, audience="web", nonce=NONCE, now=NOW), **changes}
    claims.pop(without, None)
    signed = jws.signing_input({"typ": kind}, claims)
    return jws.assemble(signed, key.sign(signed, ec.ECDSA(hashes.SHA256())))


def verified(compact, *, audience="web", nonce=NONCE, now=NOW):
    return identity.verify(compact, KEY.public_key(), audience=audience, nonce=nonce, now=now)


def test_the_genuine_one():
    assert verified(token()) == TOLD
    assert verified(token(), now=NOW + timedelta(seconds=119)) == TOLD


@pytest.mark.parametrize(
    "forged",
    [
        token(key=ec.generate_private_key(ec.SECP256R1())),
        token(kind="receipt+jwt"),
        token(iss="somebody"),
        token(aud="ayuntamiento"),
        token(aud=["web", "ayuntamiento"]),
        token(nonce="another"),
        token(nonce=None),
        token(acr="high"),
        token(exp="never"),
        token(exp=1e300),
        token(amr=None),
        *(token(without=name) for name in ("iss", "aud", "sub", "nonce", "sid", "acr", "amr", "auth_time", "exp")),
        "",
        "a.b.c",
        token()[:-4] + "AAAA",
    ],
)
def test_forged_ones(forged):
    with pytest.raises(IdentityInvalid):
        verified(forged)


def test_over_or_for_another_login():
    with pytest.raises(IdentityInvalid):
        verified(token(), now=NOW + identity.TOKEN_LIFE)
    with pytest.raises(IdentityInvalid):
        verified(token(), audience="ayuntamiento")
    with pytest.raises(IdentityInvalid):
        verified(token(), nonce="nonce-of-a-stranger-2")
    with pytest.raises(IdentityInvalid):
        verified(token(nonce=""), nonce="")
