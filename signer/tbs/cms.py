"""CMS signed attributes for PAdES and CAdES."""

import hashlib

from asn1crypto import cms, core, tsp, x509

from domain.digests import Digest

COMMITMENT_OIDS = {
    # RFC 5126 §5.11.1 (id-cti)
    "proof_of_origin": "1.2.840.113549.1.9.16.6.1",
    "proof_of_approval": "1.2.840.113549.1.9.16.6.5",
    "proof_of_creation": "1.2.840.113549.1.9.16.6.6",
}


class _CommitmentType(core.Sequence):  # type: ignore[misc]
    _fields = [("commitment_type_id", core.ObjectIdentifier)]  # noqa: RUF012 - asn1crypto's way


class _CommitmentTypes(core.SetOf):  # type: ignore[misc]
    _child_spec = _CommitmentType


class _CommitmentAttribute(core.Sequence):  # type: ignore[misc]
    _fields = [("type", core.ObjectIdentifier), ("values", _CommitmentTypes)]  # noqa: RUF012 - asn1crypto's own form


def signed_attributes(digest: Digest, certificate: bytes, fields: dict[str, str]) -> bytes:
    """The octets that are hashed and signed: signedAttrs as DER SET OF (RFC 5652 §5.4).

    Content type, message digest, signing-certificate-v2 and, if asked, the commitment type. No signing time: PAdES has
    it in the signature dictionary (EN 319 142-1 §5.3), which the document digest covers.

    Args:
        digest: The approved document digest.
        certificate: The citizen's, DER.
        fields: Staged signature fields; ``commitment_type`` is one of ``COMMITMENT_OIDS``.
    """
    attributes = [
        cms.CMSAttribute({"type": "content_type", "values": ["data"]}).dump(),
        cms.CMSAttribute({"type": "message_digest", "values": [digest.value]}).dump(),
        cms.CMSAttribute({"type": "signing_certificate_v2", "values": [_signing_certificate(certificate)]}).dump(),
    ]
    if "commitment_type" in fields:
        value = _CommitmentType({"commitment_type_id": COMMITMENT_OIDS[fields["commitment_type"]]})
        # OID: RFC 5126 §5.11.1, id-aa-ets-commitmentType
        attributes.append(_CommitmentAttribute({"type": "1.2.840.113549.1.9.16.2.16", "values": [value]}).dump())
    # DER orders a SET OF by the encodings of its members (X.690 §11.6).
    body = b"".join(sorted(attributes))
    return bytes(core.Asn1Value.load(b"\x31" + _length(len(body)) + body).dump())


def _signing_certificate(certificate: bytes) -> tsp.SigningCertificateV2:
    parsed = x509.Certificate.load(certificate)
    issuer_serial = {
        "issuer": [x509.GeneralName("directory_name", parsed.issuer)],
        "serial_number": parsed.serial_number,
    }
    # SHA-256 is the default of hashAlgorithm and so, in DER, left out (RFC 5035 §4).
    return tsp.SigningCertificateV2(
        {"certs": [{"cert_hash": hashlib.sha256(certificate).digest(), "issuer_serial": issuer_serial}]}
    )


def _length(size: int) -> bytes:
    if size < 0x80:  # noqa: PLR2004 - X.690 §8.1.3.4, the short form
        return bytes([size])
    encoded = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded
