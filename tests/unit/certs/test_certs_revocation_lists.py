"""Which lists of revoked certificates say something of a certificate, and which do not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certs.revocation_lists import RevocationList, StatusUnknown, is_revoked
from tests.testkit.agency_pki import Authority, agency_name, client_extensions, p256

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HERE, ELSEWHERE = (x509.UniformResourceIdentifier(f"http://ca.example/{number}.crl") for number in (1, 2))


def scope(*names: x509.GeneralName, **changes: Any) -> x509.IssuingDistributionPoint:
    values: dict[str, Any] = {
        "full_name": list(names) or None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
        **changes,
    }
    return x509.IssuingDistributionPoint(**values)


def at(*names: x509.GeneralName, **changes: Any) -> x509.CRLDistributionPoints:
    values: dict[str, Any] = {"relative_name": None, "reasons": None, "crl_issuer": None, **changes}
    return x509.CRLDistributionPoints([x509.DistributionPoint(full_name=list(names), **values)])


@pytest.fixture
def ca() -> Authority:
    return Authority(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]), NOW)


def certified(ca: Authority, *points: x509.CRLDistributionPoints) -> x509.Certificate:
    extensions = client_extensions(others=[(point, False) for point in points])
    return ca.certify(agency_name(), p256(), extensions=extensions)


def asked(ca: Authority, certificate: x509.Certificate, *crls: bytes, now: datetime = NOW) -> bool:
    return is_revoked(certificate, ca.certificate, [RevocationList(each) for each in crls], now)


def test_one_current_list_says_it_and_any_that_lists_it_counts(ca: Authority) -> None:
    certificate, other = certified(ca), certified(ca)
    old = ca.crl(since=NOW - timedelta(hours=2))
    ca.revoked.append(certificate.serial_number)
    assert asked(ca, certificate, old) is False
    assert asked(ca, certificate, ca.crl()) is True
    assert asked(ca, certificate, old, ca.crl()) is True
    assert asked(ca, other, ca.crl()) is False


@pytest.mark.parametrize(
    ("moment", "good"),
    [
        (timedelta(0), True),
        (timedelta(days=1, seconds=-1), True),
        (timedelta(days=1), False),
        (timedelta(seconds=-1), False),
    ],
)
def test_a_list_is_good_from_its_beginning_until_its_end(ca: Authority, moment: timedelta, good: bool) -> None:
    certificate, crl = certified(ca), ca.crl(since=NOW)
    if good:
        assert asked(ca, certificate, crl, now=NOW + moment) is False
    else:
        with pytest.raises(StatusUnknown, match="CN=CA"):
            asked(ca, certificate, crl, now=NOW + moment)


def test_a_list_in_several_files_speaks_of_those_that_name_its_file(ca: Authority) -> None:
    crl = ca.crl(extensions=[(scope(HERE), True)])
    assert asked(ca, certified(ca, at(HERE)), crl) is False
    assert asked(ca, certified(ca, at(ELSEWHERE, HERE)), crl) is False
    reasons = frozenset({x509.ReasonFlags.key_compromise})
    issuer = [x509.DirectoryName(agency_name())]
    for points in ([], [at(ELSEWHERE)], [at(HERE, reasons=reasons)], [at(HERE, crl_issuer=issuer)]):
        with pytest.raises(StatusUnknown):
            asked(ca, certified(ca, *points), crl)


def test_a_list_of_authorities_says_nothing_of_others(ca: Authority) -> None:
    certificate = certified(ca)
    below = Authority(agency_name("Sub"), NOW, parent=ca).certificate
    for_users, for_authorities = (
        ca.crl(extensions=[(scope(HERE, full_name=None, **{name: True}), True)])
        for name in ("only_contains_user_certs", "only_contains_ca_certs")
    )
    assert asked(ca, certificate, for_users) is False
    assert asked(ca, below, for_authorities) is False
    for subject, crl in ((certificate, for_authorities), (below, for_users)):
        with pytest.raises(StatusUnknown):
            asked(ca, subject, crl)


UNFIT: dict[str, Callable[[Authority], bytes]] = {
    "junk": lambda _: b"junk",
    "indirect": lambda ca: ca.crl(extensions=[(scope(HERE, indirect_crl=True), True)]),
    "for some reasons": lambda ca: ca.crl(
        extensions=[(scope(HERE, only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})), True)]
    ),
    "for attribute certificates": lambda ca: ca.crl(
        extensions=[(scope(HERE, full_name=None, only_contains_attribute_certs=True), True)]
    ),
    "a delta": lambda ca: ca.crl(extensions=[(x509.DeltaCRLIndicator(1), True)]),
    "a delta that does not say so loudly": lambda ca: ca.crl(extensions=[(x509.DeltaCRLIndicator(1), False)]),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_a_list_that_is_not_the_whole_answer_is_not_read(ca: Authority, make: Callable[[Authority], bytes]) -> None:
    assert RevocationList(ca.crl())
    with pytest.raises(ValueError, match=r"list|parsing"):
        RevocationList(make(ca))


def test_who_may_not_sign_lists_says_nothing() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    ca = Authority(name, NOW, uses=("key_cert_sign",))
    with pytest.raises(StatusUnknown):
        asked(ca, certified(ca), ca.crl())
    # The same name with another key.
    able = Authority(name, NOW)
    with pytest.raises(StatusUnknown):
        asked(able, certified(able), Authority(name, NOW).crl())
    # The same key under another name.
    with pytest.raises(StatusUnknown):
        asked(able, certified(able), Authority(agency_name("Otra"), NOW, key=able.key).crl())
    assert asked(able, certified(able), able.crl()) is False


def test_another_curve_signs_lists_too() -> None:
    ca = Authority(agency_name("CA"), NOW, key=ec.generate_private_key(ec.SECP384R1()))
    assert asked(ca, certified(ca), ca.crl()) is False
