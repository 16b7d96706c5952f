"""Clients that are registered by a certificate: which certificates prove them, and which must not."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from audit.log import log_pending
from authn.agencies import Right, client
from certs.clients import ClientCertificates
from domain.errors import DependencyUnavailable, MalformedRequest
from rubrica_client import AgencyClient
from tests.testkit.agency_pki import (
    LIST_LIFE,
    AgencyPKI,
    Authority,
    PrivateKey,
    agency_name,
    client_extensions,
    key_usage,
    p256,
)
from tests.testkit.agency_proofs import AUDIENCE, CLIENT, ProofDesk
from tests.testkit.authn import database

KEY = p256()
RSA_KEY = rsa.generate_private_key(65537, 2048)
SUBJECT = agency_name()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[ProofDesk]:
    async with database(tmp_path) as engine:
        yield ProofDesk(engine, tmp_path / "agencies")


# --- what proves a client


@pytest.mark.parametrize(
    ("key", "algorithm"), [(KEY, "ES256"), (RSA_KEY, "PS256"), (RSA_KEY, "RS256")], ids=lambda x: str(x)[:5]
)
async def test_a_client_proves_itself_by_its_certificate(desk: ProofDesk, key: PrivateKey, algorithm: str) -> None:
    chain = desk.pki.issue(key)
    await desk.enter(chain)
    proved = await desk.authenticator.authenticate(desk.token(key, chain, algorithm=algorithm), "T1")
    assert (proved.id, proved.rights, len(proved.grant)) == (CLIENT, {Right.SIGN}, 43)


@pytest.mark.parametrize("key", [KEY, RSA_KEY], ids=["P-256", "RSA"])
async def test_what_our_own_client_sends_is_accepted(desk: ProofDesk, key: PrivateKey) -> None:
    chain = desk.pki.issue(key)
    await desk.enter(chain)
    with AgencyClient(
        AUDIENCE, CLIENT, key, certificate_chain=chain, now=lambda: desk.clock.now().timestamp()
    ) as agency:
        assert await desk.prove(agency.assertion()) == CLIENT
        assert await desk.prove(agency.assertion()) == CLIENT


async def test_a_renewed_certificate_needs_no_new_entry(desk: ProofDesk) -> None:
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
async def test_purposes_that_fit_a_client(desk: ProofDesk, purposes: list[x509.ObjectIdentifier]) -> None:
    extensions = client_extensions(others=[(x509.ExtendedKeyUsage(purposes), False)])
    chain = desk.pki.chain(desk.pki.ca.certify(SUBJECT, KEY, extensions=extensions))
    await desk.enter(chain)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT


async def test_the_root_may_be_sent_along_and_the_issuer_may_be_the_anchor(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter([*chain, desk.pki.root.certificate])
    assert await desk.prove(desk.token(KEY, [*chain, desk.pki.root.certificate])) == CLIENT
    (desk.folder / "root.pem").write_bytes(desk.pki.ca.certificate.public_bytes(Encoding.PEM))
    assert await desk.prove(desk.token(KEY, chain[:1])) == CLIENT
    (desk.folder / "root.pem").unlink()
    await desk.refuse(desk.token(KEY, chain[:1]))


# --- certificates that prove nobody


def expired(desk: ProofDesk) -> x509.Certificate:
    now = desk.clock.now()
    return desk.pki.ca.certify(SUBJECT, KEY, since=now - timedelta(days=9), until=now - timedelta(seconds=1))


def not_yet_valid(desk: ProofDesk) -> x509.Certificate:
    return desk.pki.ca.certify(SUBJECT, KEY, since=desk.clock.now() + timedelta(seconds=1))


def with_extensions(*arguments: Any, **options: Any) -> Callable[[ProofDesk], x509.Certificate]:
    return lambda desk: desk.pki.ca.certify(SUBJECT, KEY, extensions=client_extensions(*arguments, **options))


def without_key_usage(desk: ProofDesk) -> x509.Certificate:
    return desk.pki.ca.certify(SUBJECT, KEY, extensions=[(x509.BasicConstraints(ca=False, path_length=None), True)])


def purpose(oid: x509.ObjectIdentifier) -> Callable[[ProofDesk], x509.Certificate]:
    return with_extensions(others=[(x509.ExtendedKeyUsage([oid]), True)])


def self_signed(desk: ProofDesk) -> x509.Certificate:
    return Authority(SUBJECT, desk.clock.now()).certify(SUBJECT, KEY)


def of_an_authority_with_the_same_name(desk: ProofDesk) -> x509.Certificate:
    return Authority(desk.pki.ca.name, desk.clock.now()).certify(SUBJECT, KEY)


def another_subject(desk: ProofDesk) -> x509.Certificate:
    return desk.pki.ca.certify(agency_name("Sello de otro", "Ayuntamiento de Otro"), KEY)


def a_longer_subject(desk: ProofDesk) -> x509.Certificate:
    longer = [*SUBJECT, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Registro")]
    return desk.pki.ca.certify(x509.Name(longer), KEY)


def an_unknown_critical_extension(desk: ProofDesk) -> x509.Certificate:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.7"), b"\x05\x00")
    return desk.pki.ca.certify(SUBJECT, KEY, extensions=client_extensions(others=[(odd, True)]))


FORGED: dict[str, Callable[[ProofDesk], x509.Certificate]] = {
    "expired": expired,
    "not yet valid": not_yet_valid,
    "self-signed with the same names": self_signed,
    "an authority of the same name": of_an_authority_with_the_same_name,
    "CA:TRUE": with_extensions(ca=True),
    "CA:TRUE that may certify": with_extensions("digital_signature", "key_cert_sign", ca=True),
    "certificates may be signed": with_extensions("digital_signature", "key_cert_sign"),
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
async def test_forged_certificates_are_refused(desk: ProofDesk, forge: Callable[[ProofDesk], x509.Certificate]) -> None:
    await desk.enter()
    await desk.refuse(desk.token(KEY, desk.pki.chain(forge(desk))))
    await desk.refuse(desk.token(KEY, [forge(desk)]))
    # Their twin differs in nothing else.
    assert await desk.prove(desk.token(KEY, desk.pki.chain(desk.pki.ca.certify(SUBJECT, KEY)))) == CLIENT


async def test_a_whole_chain_of_strangers_is_refused(desk: ProofDesk, tmp_path: Path) -> None:
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


async def test_an_agency_cannot_certify_another(desk: ProofDesk) -> None:
    await desk.enter()
    middle = desk.pki.ca.certify(agency_name("Sello de otro"), RSA_KEY)
    forger = Authority(middle.subject, desk.clock.now(), key=RSA_KEY)
    await desk.refuse(desk.token(KEY, [forger.certify(SUBJECT, KEY), middle, desk.pki.ca.certificate]))


UNFIT_KEYS: dict[str, Callable[[], PrivateKey]] = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - it must be refused
    "exponent 3": lambda: rsa.generate_private_key(3, 2048),
}


UNFIT_AUTHORITIES: dict[str, tuple[int | None, tuple[str, ...], timedelta, bool]] = {
    "one that fits": (None, ("key_cert_sign", "crl_sign"), timedelta(days=9), True),
    "over": (None, ("key_cert_sign", "crl_sign"), timedelta(seconds=-1), False),
    "not for certificates": (None, ("crl_sign", "digital_signature"), timedelta(days=9), False),
    "below one that allows none": (0, ("key_cert_sign", "crl_sign"), timedelta(days=9), False),
}


@pytest.mark.parametrize(("length", "uses", "left", "fits"), UNFIT_AUTHORITIES.values(), ids=UNFIT_AUTHORITIES)
async def test_each_authority_on_the_way_is_checked(
    desk: ProofDesk, length: int | None, uses: tuple[str, ...], left: timedelta, *, fits: bool
) -> None:
    upper, lower = (Authority(agency_name(name), desk.clock.now()) for name in ("Upper", "Lower"))
    below_root = desk.pki.root.certify(upper.name, upper.key, extensions=authority(upper, length))
    until = desk.clock.now() + left
    below_upper = upper.certify(lower.name, lower.key, extensions=authority(lower, None, *uses), until=until)
    for each in (upper, lower):
        (desk.folder / f"{each.name.rfc4514_string()[3:8]}.crl").write_bytes(each.crl())
    chain = [lower.certify(SUBJECT, KEY), below_upper, below_root]
    if fits:
        await desk.enter(chain)
        assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    else:
        with pytest.raises(MalformedRequest, match="the chain does not hold"):
            await desk.enter(chain)


def authority(owner: Authority, length: int | None, *uses: str) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (x509.BasicConstraints(ca=True, path_length=length), True),
        (key_usage(*(uses or ("key_cert_sign", "crl_sign"))), True),
        (x509.SubjectKeyIdentifier.from_public_key(owner.key.public_key()), False),
    ]


@pytest.mark.parametrize("make", UNFIT_KEYS.values(), ids=UNFIT_KEYS)
async def test_other_keys_are_refused(desk: ProofDesk, make: Callable[[], PrivateKey]) -> None:
    await desk.enter()
    key = make()
    algorithms = ("ES256", "ES384") if isinstance(key, ec.EllipticCurvePrivateKey) else ("RS256", "PS256")
    for algorithm in algorithms:
        await desk.refuse(desk.token(key, desk.pki.issue(key), algorithm=algorithm))
    with pytest.raises(MalformedRequest, match="P-256, or RSA"):
        await desk.enter(desk.pki.issue(key), "other")


# --- revocation


async def test_a_revoked_certificate_is_refused(desk: ProofDesk) -> None:
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
async def test_without_a_current_list_nobody_is_let_in(desk: ProofDesk, name: str) -> None:
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


async def test_a_list_ends_while_the_core_runs(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    desk.clock.advance(LIST_LIFE.total_seconds() - 61)
    assert await desk.prove(desk.token(KEY, chain)) == CLIENT
    desk.clock.advance(1)
    with pytest.raises(DependencyUnavailable):
        await desk.prove(desk.token(KEY, chain))


# --- entering


@pytest.mark.parametrize("forge", [each for name, each in FORGED.items() if "subject" not in name])
async def test_only_a_good_certificate_is_entered(
    desk: ProofDesk, forge: Callable[[ProofDesk], x509.Certificate]
) -> None:
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


async def test_key_and_certificate_are_one_or_the_other(desk: ProofDesk) -> None:
    with pytest.raises(MalformedRequest, match="either"):
        await desk.enter(desk.pki.issue(KEY), public_key=KEY.public_key())
    async with desk.engine.begin() as connection:
        with pytest.raises(MalformedRequest, match="either"):
            await desk.register.register(
                connection, client_id=CLIENT, name="x", rights=["sign"], return_urls=["https://a.example/"]
            )


async def test_without_a_folder_there_are_no_certificates(desk: ProofDesk) -> None:
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
async def test_a_row_edited_in_the_database_is_refused(desk: ProofDesk, column: str, forged: bytes) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    async with desk.engine.begin() as connection:
        await connection.execute(sa.update(client).values({column: forged}))
    with pytest.raises(InvalidTag):
        await desk.prove(desk.token(KEY, chain))


async def test_entering_is_logged_without_its_texts(desk: ProofDesk) -> None:
    chain = desk.pki.issue(KEY)
    await desk.enter(chain)
    async with desk.engine.connect() as connection:
        facts = cbor2.loads(await connection.scalar(sa.select(log_pending.c.leaf)))["facts"]
    hashed = hashes.Hash(hashes.SHA256())
    hashed.update(chain[0].subject.public_bytes())
    assert facts["subject_sha256"] == hashed.finalize()
    assert len(facts["issuer_key_sha256"]) == 32
    assert "key_sha256" not in facts
