"""Clients that are registered by a certificate: what proves them, and everything that looks like it and must not."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Log, log_pending
from authn.agencies import WEB, Caller, CallerRegister, ClientState, Right, client, client_grant
from authn.assertions import ClientAuthenticator, client_assertion
from authn.columns import ColumnCipher
from certs.clients import ClientCertificates
from domain.errors import CallerRefused, DependencyUnavailable, MalformedRequest
from domain.ids import ClientId
from domain.jws import ASSERTION_LIMIT_CHARACTERS
from rubrica_client import AgencyClient
from tests.testkit.agency_pki import (
    LIST_LIFE,
    AgencyPKI,
    Authority,
    PrivateKey,
    agency_name,
    client_extensions,
    der,
    p256,
)
from tests.testkit.authn import database
from tests.testkit.time import FrozenClock

AUDIENCE = "https://rubrica.example.org"
CLIENT = "ayto.avila"
KEY = p256()
RSA_KEY = rsa.generate_private_key(65537, 2048)
WEB_CALLER = Caller(id=WEB, name="Rúbrica", rights=frozenset({Right.SIGN}), return_urls=("https://web.example.org/",))
SUBJECT = agency_name()
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)


@dataclass
class Desk:
    """Register and authenticator over one database, and the authority of the agencies."""

    engine: AsyncEngine
    folder: Path
    clock: FrozenClock = field(default_factory=FrozenClock)

    def __post_init__(self) -> None:
        self.pki = AgencyPKI(self.folder, self.clock.now())
        certificates = ClientCertificates(self.folder)
        self.register = CallerRegister(
            ColumnCipher({1: bytes(32)}), self.clock, Log(self.clock), certificates, web=WEB_CALLER
        )
        self.authenticator = ClientAuthenticator(
            self.engine, self.register, certificates, self.clock, audience=AUDIENCE
        )

    async def enter(
        self, chain: Sequence[x509.Certificate] = (), client_id: str = CLIENT, public_key: Any = None
    ) -> None:
        """Register by certificate; by default by a new one of the agency."""
        spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if public_key else b""
        async with self.engine.begin() as connection:
            await self.register.register(
                connection,
                client_id=client_id,
                name="Ayuntamiento de Ávila",
                rights=["sign"],
                return_urls=["https://agency.example.org/signed"],
                public_key=spki,
                certificate_chain=[der(each) for each in chain or (() if spki else self.pki.issue(p256()))],
            )

    async def prove(self, token: str) -> str:
        return (await self.authenticator.authenticate(token, "T1")).id

    async def refuse(self, token: str) -> None:
        """It is refused as everything else is, and leaves nothing behind."""
        before = await self.left()
        with pytest.raises(CallerRefused) as refusal:
            await self.prove(token)
        assert refusal.value.public_detail == "the client could not prove who it is"
        assert await self.left() == before

    async def left(self) -> tuple[int, ...]:
        async with self.engine.connect() as connection:
            counts = [
                await connection.scalar(sa.select(sa.func.count()).select_from(table))
                for table in (client_assertion, client_grant)
            ]
        return tuple(count or 0 for count in counts)

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        own = {"iss": CLIENT, "sub": CLIENT, "aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": secrets.token_hex(8)}
        return {**own, **changes}

    def token(
        self,
        key: PrivateKey,
        chain: Sequence[x509.Certificate],
        *,
        algorithm: str = "",
        claims: dict[str, Any] | None = None,
        **header: Any,
    ) -> str:
        """What a client sends, with every part to be changed."""
        algorithm = algorithm or ("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "PS256")
        full = {"alg": algorithm, "kid": CLIENT, "x5c": x5c(chain), **header}
        content = ".".join(
            base64url(json.dumps(part).encode())
            for part in ({name: value for name, value in full.items() if value is not None}, claims or self.claims())
        )
        return f"{content}.{base64url(sign(key, algorithm, content.encode()))}"


def x5c(chain: Sequence[x509.Certificate]) -> list[str]:
    return [base64.b64encode(der(each)).decode() for each in chain]


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(key: PrivateKey, algorithm: str, content: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(content, ec.ECDSA(hashes.SHA256())))
        size = (key.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return key.sign(content, padding.PKCS1v15() if algorithm == "RS256" else PSS, hashes.SHA256())


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with database(tmp_path) as engine:
        yield Desk(engine, tmp_path / "agencies")


# --- what proves a client


@pytest.mark.parametrize(
    ("key", "algorithm"), [(KEY, "ES256"), (RSA_KEY, "PS256"), (RSA_KEY, "RS256")], ids=lambda x: str(x)[:5]
)
async def test_a_client_proves_itself_by_its_certificate(desk: Desk, key: PrivateKey, algorithm: str) -> None:
    chain = desk.pki.issue(key)
    await desk.enter(chain)
    proved = await desk.authenticator.authenticate(desk.token(key, chain, algorithm=algorithm), "T1")
    assert (proved.id, proved.rights, len(proved.grant)) == (CLIENT, {Right.SIGN}, 43)


@pytest.mark.parametrize("key", [KEY, RSA_KEY], ids=["P-256", "RSA"])
async def test_what_our_own_client_sends_is_accepted(desk: Desk, key: PrivateKey) -> None:
    chain = desk.pki.issue(key)
    await desk.enter(chain)
    with AgencyClient(
        AUDIENCE, CLIENT, key, certificate_chain=chain, now=lambda: desk.clock.now().timestamp()
    ) as agency:
        assert await desk.prove(agency.assertion()) == CLIENT
        assert await desk.prove(agency.assertion()) == CLIENT


async def test_a_renewed_certificate_needs_no_new_entry(desk: Desk) -> None:
    first = desk.pki.chain(desk.pki.ca.certify(SUBJECT, KEY, until=desk.clock.now() + timedelta(days=30)))
    await desk.enter(first)
    desk.clock.advance(31 * 86400)
    desk.pki.publish(desk.clock.now())
    await desk.refuse(desk.token(KEY, first))
    assert await desk.prove(desk.token(RSA_KEY, desk.pki.issue(RSA_KEY))) == CLIENT


@pytest.mark.parametrize(
    "purposes",
    [
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION],
        [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
    ],
)
async def test_purposes_that_fit_a_client(desk: Desk, purposes: list[x509.ObjectIdentifier]) -> None:
    extensions = client_extensions(others=[(x509.ExtendedKeyUsage(purposes), False)])
    chain = desk.pki.chain(desk.pki.ca.certify(SUBJECT, KEY, extensions=extensions))
    await desk.enter(chain)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT


async def test_the_root_may_be_sent_along_and_the_issuer_may_be_the_anchor(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter([*chain, desk.pki.root.certificate])
    assert await desk.prove(desk.token(KEY, [*chain, desk.pki.root.certificate])) == CLIENT
    (desk.folder / "root.pem").write_bytes(desk.pki.ca.certificate.public_bytes(Encoding.PEM))
    assert await desk.prove(desk.token(KEY, chain[:1])) == CLIENT
    (desk.folder / "root.pem").unlink()
    await desk.refuse(desk.token(KEY, chain[:1]))


# --- certificates that prove nobody


def expired(desk: Desk) -> x509.Certificate:
    now = desk.clock.now()
    return desk.pki.ca.certify(SUBJECT, KEY, since=now - timedelta(days=9), until=now - timedelta(seconds=1))


def not_yet_valid(desk: Desk) -> x509.Certificate:
    return desk.pki.ca.certify(SUBJECT, KEY, since=desk.clock.now() + timedelta(seconds=1))


def with_extensions(*arguments: Any, **options: Any) -> Callable[[Desk], x509.Certificate]:
    return lambda desk: desk.pki.ca.certify(SUBJECT, KEY, extensions=client_extensions(*arguments, **options))


def without_key_usage(desk: Desk) -> x509.Certificate:
    return desk.pki.ca.certify(SUBJECT, KEY, extensions=[(x509.BasicConstraints(ca=False, path_length=None), True)])


def purpose(oid: x509.ObjectIdentifier) -> Callable[[Desk], x509.Certificate]:
    return with_extensions(others=[(x509.ExtendedKeyUsage([oid]), True)])


def self_signed(desk: Desk) -> x509.Certificate:
    return Authority(SUBJECT, desk.clock.now()).certify(SUBJECT, KEY)


def of_an_authority_with_the_same_name(desk: Desk) -> x509.Certificate:
    return Authority(desk.pki.ca.name, desk.clock.now()).certify(SUBJECT, KEY)


def another_subject(desk: Desk) -> x509.Certificate:
    return desk.pki.ca.certify(agency_name("Sello de otro", "Ayuntamiento de Otro"), KEY)


def a_longer_subject(desk: Desk) -> x509.Certificate:
    longer = [*SUBJECT, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Registro")]
    return desk.pki.ca.certify(x509.Name(longer), KEY)


def an_unknown_critical_extension(desk: Desk) -> x509.Certificate:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.7"), b"\x05\x00")
    return desk.pki.ca.certify(SUBJECT, KEY, extensions=client_extensions(others=[(odd, True)]))


FORGED: dict[str, Callable[[Desk], x509.Certificate]] = {
    "expired": expired,
    "not yet valid": not_yet_valid,
    "self-signed with the same names": self_signed,
    "an authority of the same name": of_an_authority_with_the_same_name,
    "CA:TRUE": with_extensions(ca=True),
    "CA:TRUE that may certify": with_extensions("digital_signature", "key_cert_sign", ca=True),
    "contentCommitment only": with_extensions("content_commitment"),
    "keyEncipherment only": with_extensions("key_encipherment"),
    "no key usage": without_key_usage,
    "a time-stamping unit": purpose(ExtendedKeyUsageOID.TIME_STAMPING),
    "an OCSP responder": purpose(ExtendedKeyUsageOID.OCSP_SIGNING),
    "a server only": purpose(ExtendedKeyUsageOID.SERVER_AUTH),
    "another subject of the same issuer": another_subject,
    "one more attribute in the subject": a_longer_subject,
    "an unknown critical extension": an_unknown_critical_extension,
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_forged_certificates_are_refused(desk: Desk, forge: Callable[[Desk], x509.Certificate]) -> None:
    await desk.enter()
    await desk.refuse(desk.token(KEY, desk.pki.chain(forge(desk))))
    await desk.refuse(desk.token(KEY, [forge(desk)]))
    # Their twin differs in nothing else.
    assert await desk.prove(desk.token(KEY, desk.pki.chain(desk.pki.ca.certify(SUBJECT, KEY)))) == CLIENT


async def test_a_whole_chain_of_strangers_is_refused(desk: Desk, tmp_path: Path) -> None:
    await desk.enter()
    strangers = AgencyPKI(tmp_path / "strangers", desk.clock.now())
    assert strangers.ca.name == desk.pki.ca.name
    chain = strangers.issue(KEY)
    for shown in (chain, [*chain, strangers.root.certificate], [chain[0], desk.pki.ca.certificate]):
        await desk.refuse(desk.token(KEY, shown))
    # Another authority under the same anchor certifies the same subject: it is not the one of the entry.
    sister = Authority(desk.pki.ca.name, desk.clock.now(), parent=desk.pki.root)
    (desk.folder / "sister.crl").write_bytes(sister.crl())
    await desk.refuse(desk.token(KEY, [sister.certify(SUBJECT, KEY), sister.certificate]))


async def test_an_agency_cannot_certify_another(desk: Desk) -> None:
    await desk.enter()
    middle = desk.pki.ca.certify(agency_name("Sello de otro"), RSA_KEY)
    forger = Authority(middle.subject, desk.clock.now(), key=RSA_KEY)
    await desk.refuse(desk.token(KEY, [forger.certify(SUBJECT, KEY), middle, desk.pki.ca.certificate]))


UNFIT_KEYS: dict[str, Callable[[], PrivateKey]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - it must be refused
    "exponent 3": lambda: rsa.generate_private_key(3, 2048),
}


@pytest.mark.parametrize("make", UNFIT_KEYS.values(), ids=UNFIT_KEYS)
async def test_other_keys_are_refused(desk: Desk, make: Callable[[], PrivateKey]) -> None:
    await desk.enter()
    key = make()
    algorithms = ("ES256", "ES384") if isinstance(key, ec.EllipticCurvePrivateKey) else ("RS256", "PS256")
    for algorithm in algorithms:
        await desk.refuse(desk.token(key, desk.pki.issue(key), algorithm=algorithm))
    with pytest.raises(MalformedRequest, match="P-256, or RSA"):
        await desk.enter(desk.pki.issue(key), "other")


# --- revocation


async def test_a_revoked_certificate_is_refused(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    desk.pki.ca.revoked.append(chain[0].serial_number)
    desk.pki.publish()
    await desk.refuse(desk.token(KEY, chain))
    # The next one of the same agency is good.
    assert await desk.prove(desk.token(RSA_KEY, desk.pki.issue(RSA_KEY))) == CLIENT
    desk.pki.root.revoked.append(desk.pki.ca.certificate.serial_number)
    desk.pki.publish()
    await desk.refuse(desk.token(RSA_KEY, desk.pki.issue(RSA_KEY)))


@pytest.mark.parametrize("name", ["ca", "root"])
async def test_without_a_current_list_nobody_is_let_in(desk: Desk, name: str) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    authority = {"ca": desk.pki.ca, "root": desk.pki.root}[name]
    now = desk.clock.now()
    unfit = {
        "stale": authority.crl(since=now - LIST_LIFE),
        "of tomorrow": authority.crl(since=now + timedelta(seconds=1)),
        "signed by another key": authority.crl(key=p256()),
        "junk": b"junk",
        "cut": authority.crl()[:-1],
        "of another authority": Authority(SUBJECT, now).crl(),
        "a delta": authority.crl(extensions=[(x509.DeltaCRLIndicator(1), True)]),
        "critical and unknown": authority.crl(
            extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.7"), b"\x05\x00"), True)]
        ),
    }
    path = desk.folder / f"{name}.crl"
    for why, content in unfit.items():
        path.write_bytes(content)
        before = await desk.left()
        with pytest.raises(DependencyUnavailable, match="revoked"):
            await desk.prove(desk.token(KEY, chain))
        assert await desk.left() == before, why
        with pytest.raises(DependencyUnavailable, match="no current list"):
            await desk.enter(chain, "other")
        path.write_bytes(authority.crl())
        assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    path.unlink()
    with pytest.raises(DependencyUnavailable):
        await desk.prove(desk.token(KEY, chain))
    # Whoever has not proved possession learns nothing of it.
    await desk.refuse(desk.token(p256(), chain))


async def test_a_list_ends_while_the_core_runs(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    desk.clock.advance(LIST_LIFE.total_seconds() - 61)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    desk.clock.advance(1)
    with pytest.raises(DependencyUnavailable):
        await desk.prove(desk.token(KEY, chain))


# --- possession: the signature


async def test_the_certificate_alone_proves_nothing(desk: Desk) -> None:
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


async def test_algorithms_cannot_be_confused(desk: Desk) -> None:
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


async def test_the_chain_stands_in_order(desk: Desk) -> None:
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
async def test_junk_in_place_of_a_chain_is_refused(desk: Desk, value: object) -> None:
    await desk.enter()
    await desk.refuse(desk.token(KEY, [], x5c=value))


async def test_a_chain_is_not_in_base64url(desk: Desk) -> None:
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
async def test_a_header_that_means_more_is_refused(desk: Desk, extra: dict[str, Any]) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    await desk.refuse(desk.token(KEY, chain, **extra))
    assert await desk.prove(desk.token(KEY, chain, typ="JWT")) == CLIENT


# --- the register decides, not the client


async def test_a_client_with_a_key_is_not_talked_into_a_certificate(desk: Desk) -> None:
    key = p256()
    await desk.enter(client_id=CLIENT, public_key=key.public_key())
    assert await desk.prove(desk.token(key, [], x5c=None)) == CLIENT
    # Even a good certificate of that very key.
    for forger in (KEY, RSA_KEY, key):
        await desk.refuse(desk.token(forger, desk.pki.issue(forger)))


async def test_a_client_with_a_certificate_is_not_talked_into_a_key(desk: Desk) -> None:
    for key in (KEY, RSA_KEY):
        client_id = "ec" if key is KEY else "rsa"
        chain = desk.pki.issue(key)
        await desk.enter(chain, client_id)
        named = desk.claims(iss=client_id, sub=client_id)
        await desk.refuse(desk.token(key, chain, x5c=None, kid=client_id, claims=named))
        await desk.refuse(desk.token(key, chain, x5c=[], kid=client_id, claims=named))
        assert await desk.prove(desk.token(key, chain, kid=client_id, claims=named)) == client_id


async def test_an_unknown_client_is_refused_like_a_known_one(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.refuse(desk.token(KEY, chain))
    await desk.enter(chain)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    async with desk.engine.begin() as connection:
        await desk.register.set_state(connection, ClientId(CLIENT), ClientState.BLOCKED)
    await desk.refuse(desk.token(KEY, chain))


async def test_an_assertion_is_good_once(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    claims = desk.claims()
    once = desk.token(KEY, chain, claims=claims)
    answers = await asyncio.gather(*(desk.prove(once) for _ in range(10)), return_exceptions=True)
    assert sorted(isinstance(answer, CallerRefused) for answer in answers) == [False] + [True] * 9
    # The same jti again, by a renewed certificate.
    await desk.refuse(desk.token(RSA_KEY, desk.pki.issue(RSA_KEY), claims=claims))


async def test_claims_are_checked_as_ever(desk: Desk) -> None:
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


async def test_three_large_certificates_fit(desk: Desk) -> None:
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


async def test_an_assertion_has_a_limit(desk: Desk) -> None:
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


# --- entering


@pytest.mark.parametrize("forge", [each for name, each in FORGED.items() if "subject" not in name])
async def test_only_a_good_certificate_is_entered(desk: Desk, forge: Callable[[Desk], x509.Certificate]) -> None:
    with pytest.raises(MalformedRequest, match="the certificate is not accepted"):
        await desk.enter(desk.pki.chain(forge(desk)))
    revoked = desk.pki.issue(KEY)
    desk.pki.ca.revoked.append(revoked[0].serial_number)
    desk.pki.publish()
    with pytest.raises(MalformedRequest, match="revoked"):
        await desk.enter(revoked)
    with pytest.raises(MalformedRequest, match="names nobody"):
        await desk.enter(desk.pki.issue(KEY, x509.Name([])))
    async with desk.engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(client)) == 0


async def test_key_and_certificate_are_one_or_the_other(desk: Desk) -> None:
    with pytest.raises(MalformedRequest, match="either"):
        await desk.enter(desk.pki.issue(KEY), public_key=KEY.public_key())
    async with desk.engine.begin() as connection:
        with pytest.raises(MalformedRequest, match="either"):
            await desk.register.register(
                connection, client_id=CLIENT, name="x", rights=["sign"], return_urls=["https://a.example/"]
            )


async def test_without_a_folder_there_are_no_certificates(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    desk.authenticator._certificates = ClientCertificates(None)
    await desk.refuse(desk.token(KEY, chain))
    desk.authenticator._certificates = ClientCertificates(desk.folder / "missing")
    await desk.refuse(desk.token(KEY, chain))


@pytest.mark.parametrize(
    ("column", "forged"),
    [
        ("subject", agency_name("Sello de otro").public_bytes()),
        ("issuer_key_sha256", bytes(32)),
        ("public_key", KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    ],
    ids=["subject", "issuer", "key"],
)
async def test_a_row_edited_in_the_database_is_refused(desk: Desk, column: str, forged: bytes) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    async with desk.engine.begin() as connection:
        await connection.execute(sa.update(client).values({column: forged}))
    with pytest.raises(InvalidTag):
        await desk.prove(desk.token(KEY, chain))


async def test_entering_is_logged_without_its_texts(desk: Desk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    async with desk.engine.connect() as connection:
        facts = cbor2.loads(await connection.scalar(sa.select(log_pending.c.leaf)))["facts"]
    hashed = hashes.Hash(hashes.SHA256())
    hashed.update(chain[0].subject.public_bytes())
    assert facts["subject_sha256"] == hashed.finalize()
    assert len(facts["issuer_key_sha256"]) == 32
    assert "key_sha256" not in facts
