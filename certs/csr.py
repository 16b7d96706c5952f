"""PKCS#10 (RFC 2986) in two steps, because the key that signs it opens only inside an approval."""

from typing import Any

from asn1crypto import algos, core, csr, keys, x509

from certs.issuer import Subject
from certs.profiles import subject_name
from domain.algorithms import KeyType

SIGNATURE_ALGORITHMS = {KeyType.P256: "sha256_ecdsa", KeyType.RSA3072: "sha256_rsa"}


def csr_to_be_signed(subject: Subject, spki: bytes) -> bytes:
    """CertificationRequestInfo, DER: sign its SHA-256 with the key of ``spki``.

    Args:
        subject: Whom the certificate is for.
        spki: SubjectPublicKeyInfo, DER.

    Raises:
        MalformedRequest: The subject is not one that can be certified.
        ValueError: ``spki`` is not one.
    """
    info: bytes = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": x509.Name.load(subject_name(subject).public_bytes(), strict=True),
            "subject_pk_info": keys.PublicKeyInfo.load(spki, strict=True),
            "attributes": [],
        }
    ).dump()
    return info


def assemble_csr(to_be_signed: bytes, signature: bytes, key_type: KeyType) -> bytes:
    """The certification request, DER.

    Args:
        to_be_signed: From ``csr_to_be_signed``.
        signature: Over its SHA-256: ECDSA as DER for P-256, PKCS#1 v1.5 for RSA-3072.
        key_type: The key that signed.

    Raises:
        ValueError: ``to_be_signed`` is not a CertificationRequestInfo.
    """
    algorithm: dict[str, Any] = {"algorithm": SIGNATURE_ALGORITHMS[key_type]}
    request: bytes = csr.CertificationRequest(
        {
            "certification_request_info": csr.CertificationRequestInfo.load(to_be_signed, strict=True),
            "signature_algorithm": algos.SignedDigestAlgorithm(algorithm),
            "signature": core.OctetBitString(signature),
        }
    ).dump()
    return request
