"""Trust anchors for validation without a network."""

from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


def write_trust_anchors(folder: Path, public_url: str, *, timeout_seconds: float = 10.0) -> None:
    """Fetch root, issuing CA and their current CRLs from the PKI's public face and write them as PEM.

    ``root.pem``, ``ca.pem``, ``root.crl`` and ``ca.crl`` are what ``openssl verify -crl_check_all`` takes with
    ``-CAfile``, ``-untrusted`` and ``-CRLfile``.

    Args:
        folder: Is made if missing; files of an earlier run are replaced.
        public_url: The PKI's ``public_url``.
        timeout_seconds: For each of the four requests.

    Raises:
        httpx.HTTPError: The PKI does not answer.
        ValueError: It answers something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=public_url, timeout=timeout_seconds, trust_env=False) as client:
        for authority in ("root", "ca"):
            certificate = x509.load_der_x509_certificate(_get(client, f"/certs/{authority}.crt"))
            (folder / f"{authority}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
            crl = x509.load_der_x509_crl(_get(client, f"/crl/{authority}.crl"))
            (folder / f"{authority}.crl").write_bytes(crl.public_bytes(Encoding.PEM))


def _get(client: httpx.Client, path: str) -> bytes:
    return client.get(path).raise_for_status().content
