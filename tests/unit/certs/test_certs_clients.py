"""The operator's folder of agencies' authorities: what is read of it, what is left out, and when it is read again."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import certs.clients
from certs.clients import CertificateRefused, ClientCertificates
from certs.revocation_lists import StatusUnknown
from tests.testkit.agency_pki import AgencyPKI, agency_name, der, p256

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def pki(tmp_path: Path) -> AgencyPKI:
    return AgencyPKI(tmp_path / "agencies", NOW)


async def good(certificates: ClientCertificates, chain: list[x509.Certificate]) -> bool:
    await certificates.check_status(await certificates.check([der(each) for each in chain], NOW), NOW)
    return True


async def test_a_file_that_cannot_be_used_is_left_out_and_the_others_count(pki: AgencyPKI) -> None:
    chain = pki.issue(p256())
    (pki.folder / "a.pem").write_bytes(b"junk")
    (pki.folder / "b.crl").write_bytes(b"junk")
    (pki.folder / "c.pem").mkdir()
    (pki.folder / "notes.txt").write_bytes(b"junk")
    assert await good(ClientCertificates(pki.folder), chain)


async def test_an_agencys_own_certificate_is_no_anchor(pki: AgencyPKI) -> None:
    key = p256()
    chain = pki.issue(key)
    (pki.folder / "root.pem").write_bytes(chain[0].public_bytes(Encoding.PEM))
    certificates = ClientCertificates(pki.folder)
    for shown in (chain, chain[:1]):
        with pytest.raises(CertificateRefused):
            await good(certificates, shown)
    (pki.folder / "ca.pem").write_bytes(pki.ca.certificate.public_bytes(Encoding.PEM))
    assert await good(certificates, chain[:1])


async def test_an_anchor_that_is_over_ends_its_agencies(pki: AgencyPKI) -> None:
    chain = pki.issue(p256())
    over = pki.root.certify(
        pki.root.name, pki.root.key, until=NOW, extensions=[(each.value, each.critical) for each in _kept(pki)]
    )
    (pki.folder / "root.pem").write_bytes(over.public_bytes(Encoding.PEM))
    certificates = ClientCertificates(pki.folder)
    assert await certificates.check([der(each) for each in chain], NOW)
    with pytest.raises(CertificateRefused):
        await certificates.check([der(each) for each in chain], NOW.replace(second=1))


def _kept(pki: AgencyPKI) -> list[x509.Extension[x509.ExtensionType]]:
    extensions = pki.root.certificate.extensions
    return [each for each in extensions if not isinstance(each.value, x509.AuthorityKeyIdentifier)]


async def test_a_list_may_be_in_pem_and_has_a_limit(pki: AgencyPKI, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = pki.issue(p256())
    path = pki.folder / "ca.crl"
    path.write_bytes(x509.load_der_x509_crl(path.read_bytes()).public_bytes(Encoding.PEM))
    assert await good(ClientCertificates(pki.folder), chain)
    limit = max(each.stat().st_size for each in pki.folder.iterdir())
    monkeypatch.setattr(certs.clients, "FILE_LIMIT_BYTES", limit)
    for size, fits in ((limit, True), (limit + 1, False)):
        path.write_bytes(path.read_bytes().ljust(size, b"\n"))
        if fits:
            assert await good(ClientCertificates(pki.folder), chain)
        else:
            with pytest.raises(StatusUnknown):
                await good(ClientCertificates(pki.folder), chain)


async def test_the_folder_is_read_again_when_it_changes_only(pki: AgencyPKI, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Path.read_bytes

    def reading(path: Path) -> bytes:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    certificates = ClientCertificates(pki.folder)
    chain = pki.issue(p256())
    for _ in range(3):
        assert await good(certificates, chain)
    assert sorted(read) == ["ca.crl", "root.crl", "root.pem"]
    pki.ca.revoked.append(chain[0].serial_number)
    (pki.folder / "new").write_bytes(pki.ca.crl())
    (pki.folder / "new").rename(pki.folder / "ca.crl")
    with pytest.raises(CertificateRefused, match="revoked"):
        await good(certificates, chain)
    assert await good(certificates, pki.issue(p256(), agency_name("Otro sello")))
