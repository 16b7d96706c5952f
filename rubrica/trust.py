"""Whom to believe, from a folder."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from documents.model import TrustMaterial


def load_trust(folder: Path, *, crls: bool = False) -> TrustMaterial:
    """Certificates of ``folder``: self-signed ones are anchors, others help to build chains.

    Args:
        folder: Holds ``*.pem`` and, for who has no network, ``*.crl`` (PEM or DER).
        crls: Whether to take the revocation lists too.

    Raises:
        ValueError: A file is not what its name says, or there is no anchor.
        OSError: A file cannot be read.
    """
    anchors: list[bytes] = []
    intermediates: list[bytes] = []
    for path in sorted(folder.glob("*.pem")):
        for certificate in x509.load_pem_x509_certificates(path.read_bytes()):
            found = anchors if certificate.issuer == certificate.subject else intermediates
            found.append(certificate.public_bytes(Encoding.DER))
    if not anchors:
        raise ValueError(f"there is no trust anchor in {folder}")
    lists = tuple(_crl(path) for path in sorted(folder.glob("*.crl"))) if crls else ()
    return TrustMaterial(tuple(anchors), tuple(intermediates), lists)


def _crl(path: Path) -> bytes:
    encoded = path.read_bytes()
    loaded = x509.load_pem_x509_crl(encoded) if encoded.startswith(b"-----BEGIN") else x509.load_der_x509_crl(encoded)
    return loaded.public_bytes(Encoding.DER)
