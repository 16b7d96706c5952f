"""Clients that are registered by a certificate: possession of its key, and what else their assertion says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn.agencies import ClientState
from domain.errors import CallerRefused
from domain.ids import ClientId
from domain.jws import ASSERTION_LIMIT_CHARACTERS
from tests.testkit.agency_pki import (
    Authority,
    agency_name,
    client_extensions,
    der,
    p256,
)
from tests.testkit.agency_proofs import CLIENT, ProofDesk, base64url, x5c
from tests.testkit.authn import database

KEY = p256()
RSA_KEY = rsa.generate_private_key(65537, 2048)
SUBJECT = agency_name()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[ProofDesk]:
    async with database(tmp_path) as engine:
        yield ProofDesk(engine, tmp_path / "agencies")


# --- possession: the signature


async def test_the_certificate_alone_proves_nothing(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    good = desk.token(KEY, chain)
    content, _, signature = good.rpartition(".")
    other = desk.token(p256(), chain)
    forged = [
        other,
        content + ".",
        f"{content}.{base64url(bytes(64))}",
        f"{content}.{other.rpartition('.')[2]}",
        f"{content}.{base64url(KEY.sign(content.encode(), ec.ECDSA(hashes.SHA256())))}",
        f"{desk.token(KEY, chain).rpartition('.')[0]}.{signature}",
    ]
    for token in forged:
        await desk.refuse(token)
    assert await desk.prove(good) == CLIENT


async def test_algorithms_cannot_be_confused(desk: ProofDesk) -> None:
    chains = {"EC": (KEY, desk.pki.issue(KEY)), "RSA": (RSA_KEY, desk.pki.issue(RSA_KEY))}
    await desk.enter(chains["EC"][1])
    for kind, (key, chain) in chains.items():
        others = ("RS256", "PS256") if kind == "EC" else ("ES256",)
        wrong = ("none", "None", "", "HS256", "ES384", "RS512", "PS512", "EdDSA", *others)
        for algorithm in wrong:
            unsigned = desk.token(key, chain, alg=algorithm).rpartition(".")[0]
            await desk.refuse(desk.token(key, chain, alg=algorithm))
            await desk.refuse(unsigned + ".")
        for not_text in (None, 7, ["ES256", "PS256"], {"alg": "ES256"}):
            await desk.refuse(desk.token(key, chain, alg=not_text))
        # What is public, as an HMAC secret.
        content = desk.token(key, chain, alg="HS256").rpartition(".")[0]
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for secret in (spki, der(chain[0]), b""):
            code = hmac.HMAC(secret, hashes.SHA256())
            code.update(content.encode())
            await desk.refuse(f"{content}.{base64url(code.finalize())}")
        assert await desk.prove(desk.token(key, chain)) == CLIENT
    # One RSA scheme under the name of the other, another salt, another hash.
    key, chain = RSA_KEY, chains["RSA"][1]
    content = desk.token(key, chain, algorithm="PS256").rpartition(".")[0]
    for scheme, digest in (
        (padding.PKCS1v15(), hashes.SHA256()),
        (padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=20), hashes.SHA256()),
        (padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32), hashes.SHA1()),  # noqa: S303 - it must be refused
    ):
        await desk.refuse(f"{content}.{base64url(key.sign(content.encode(), scheme, digest))}")


# --- the header


async def test_the_chain_stands_in_order(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    leaf, ca, root = *chain, desk.pki.root.certificate
    wrong = [
        [ca, leaf],
        [root, ca, leaf],
        [leaf, root],
        [leaf, root, ca],
        [leaf, leaf, ca],
        [leaf, ca, leaf],
        [leaf, ca, ca],
        [leaf],
        [],
        [root],
        [leaf, ca, root, root, root],
    ]
    for order in wrong:
        await desk.refuse(desk.token(KEY, order))
    # A CA's key is no client's, in order or not.
    await desk.refuse(desk.token(desk.pki.ca.key, [ca, root]))
    await desk.refuse(desk.token(desk.pki.root.key, [root]))
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT


@pytest.mark.parametrize(
    "value",
    ["", "x", {}, 7, True, [7], [[]], [""], ["é"], ["AA"], ["AAAA"], [None], ["A" * 9000]],
    ids=lambda value: str(value)[:9],
)
async def test_junk_in_place_of_a_chain_is_refused(desk: ProofDesk, value: object) -> None:
    await desk.enter()
    await desk.refuse(desk.token(KEY, [], x5c=value))


async def test_a_chain_is_not_in_base64url(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    changed = [each.replace("+", "-").replace("/", "_").rstrip("=") for each in x5c(chain)]
    assert changed != x5c(chain)
    await desk.refuse(desk.token(KEY, chain, x5c=changed))
    await desk.refuse(desk.token(KEY, chain, x5c=[f"{each[:64]}\n{each[64:]}" for each in x5c(chain)]))


@pytest.mark.parametrize(
    "extra",
    [
        {"jku": "https://evil.example.org/keys"},
        {"jwk": {"kty": "EC"}},
        {"x5u": "https://evil.example.org/chain"},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"x5t#S256": "AAAA"},
        {"cty": "JWT"},
        {"kid": "other"},
        {"kid": None},
    ],
    ids=str,
)
async def test_a_header_that_means_more_is_refused(desk: ProofDesk, extra: dict[str, Any]) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    await desk.refuse(desk.token(KEY, chain, **extra))
    assert await desk.prove(desk.token(KEY, chain, typ="JWT")) == CLIENT


# --- the register decides, not the client


async def test_a_client_with_a_key_is_not_talked_into_a_certificate(desk: ProofDesk) -> None:
    key = p256()
    await desk.enter(client_id=CLIENT, public_key=key.public_key())
    assert await desk.prove(desk.token(key, [], x5c=None)) == CLIENT
    # Even a good certificate of that very key.
    for forger in (KEY, RSA_KEY, key):
        await desk.refuse(desk.token(forger, desk.pki.issue(forger)))


async def test_a_client_with_a_certificate_is_not_talked_into_a_key(desk: ProofDesk) -> None:
    for key in (KEY, RSA_KEY):
        client_id = "ec" if key is KEY else "rsa"
        chain = desk.pki.issue(key)
        await desk.enter(chain, client_id)
        named = desk.claims(iss=client_id, sub=client_id)
        await desk.refuse(desk.token(key, chain, x5c=None, kid=client_id, claims=named))
        await desk.refuse(desk.token(key, chain, x5c=[], kid=client_id, claims=named))
        assert await desk.prove(desk.token(key, chain, kid=client_id, claims=named)) == client_id


async def test_an_unknown_client_is_refused_like_a_known_one(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.refuse(desk.token(KEY, chain))
    await desk.enter(chain)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    async with desk.engine.begin() as connection:
        await desk.register.set_state(connection, ClientId(CLIENT), ClientState.BLOCKED)
    await desk.refuse(desk.token(KEY, chain))


async def test_an_assertion_is_good_once(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    claims = desk.claims()
    once = desk.token(KEY, chain, claims=claims)
    answers = await asyncio.gather(*(desk.prove(once) for _ in range(10)), return_exceptions=True)
    assert sorted(isinstance(answer, CallerRefused) for answer in answers) == [False] + [True] * 9
    # The same jti again, by a renewed certificate.
    await desk.refuse(desk.token(RSA_KEY, desk.pki.issue(RSA_KEY), claims=claims))


async def test_claims_are_checked_as_ever(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    now = int(desk.clock.now().timestamp())
    for wrong in (
        {"aud": "https://elsewhere.example.org"},
        {"exp": now},
        {"exp": now + 301},
        {"iat": now + 31},
        {"sub": "other"},
        {"iss": "other", "sub": "other"},
        {"jti": "short"},
    ):
        await desk.refuse(desk.token(KEY, chain, claims=desk.claims(**wrong)))


async def test_three_large_certificates_fit(desk: ProofDesk) -> None:
    # As large as those in use: 4096 bits in each, and half a kilobyte of policies and addresses.
    key = rsa.generate_private_key(65537, 4096)
    padded = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.8"), bytes(500)), False)]
    root = Authority(agency_name("Raíz"), desk.clock.now(), key=key, others=padded)
    ca = Authority(agency_name("CA"), desk.clock.now(), key=key, parent=root, others=padded)
    (desk.folder / "large.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    for number, authority in enumerate((root, ca)):
        (desk.folder / f"large-{number}.crl").write_bytes(authority.crl())
    chain = [ca.certify(SUBJECT, key, extensions=client_extensions(others=padded)), ca.certificate, root.certificate]
    assert min(len(der(each)) for each in chain) > 1900
    await desk.enter(chain)
    assert await desk.prove(desk.token(key, chain)) == CLIENT


async def test_an_assertion_has_a_limit(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    free = ASSERTION_LIMIT_CHARACTERS - len(desk.token(KEY, chain, claims=desk.claims(pad="")))
    seen = set()
    for padding_characters in range(free * 3 // 4 - 4, free * 3 // 4 + 4):
        token = desk.token(KEY, chain, claims=desk.claims(pad="x" * padding_characters))
        seen.add(fits := len(token) <= ASSERTION_LIMIT_CHARACTERS)
        if fits:
            assert await desk.prove(token) == CLIENT
        else:
            await desk.refuse(token)
    assert seen == {True, False}
