"""The CMS of a PAdES signature, around attributes that the core built and signed elsewhere.

The attributes go in byte for byte as they came, and are checked against the document and the certificate first.
"""

from dataclasses import dataclass
from hashlib import sha256

from asn1crypto import algos, cms, core, tsp, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import load_der_x509_certificate

from documents.model import SignatureParts
from domain.digests import Digest
from domain.errors import MalformedRequest

_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
_REQUIRED = frozenset({_CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_CERTIFICATE_V2})
# EN 319 142-1 §6.3: signing-time is not to be used in PAdES (the dictionary's /M has it). These may be there:
_OPTIONAL = frozenset(
    {
        "1.2.840.113549.1.9.52",  # CMS algorithm protection (RFC 6211)
        "1.2.840.113549.1.9.16.2.15",  # signature policy identifier (EN 319 122-1 §5.2.9)
        "1.2.840.113549.1.9.16.2.16",  # commitment type indication (EN 319 122-1 §5.2.3)
        "0.4.0.19122.1.1",  # signer attributes v2 (EN 319 122-1 §5.2.6)
    }
)


@dataclass(frozen=True, slots=True)
class SignedParts:
    """Parts whose every claim was checked against the document; only ``check`` makes them."""

    attributes: cms.CMSAttributes
    signature: bytes
    signature_algorithm: str
    chain: tuple[x509.Certificate, ...]


def check(parts: SignatureParts, document_digest: Digest) -> SignedParts:
    """Check that ``parts`` are a signature of exactly this document by exactly this certificate.

    Raises:
        MalformedRequest: They are not; the detail names the check.

    Source: RFC 5652 §5.4 and §5.6, RFC 5035 §4 (signing-certificate-v2), EN 319 142-1 §6.3.
    """
    try:
        attributes = cms.CMSAttributes.load(parts.to_be_signed, strict=True)
        named = {attribute["type"].dotted: list(attribute["values"]) for attribute in attributes}
        chain = tuple(x509.Certificate.load(der, strict=True) for der in parts.chain)
    except (ValueError, TypeError) as error:
        raise MalformedRequest("the signed attributes or the certificates are not DER") from error
    if not chain:
        raise MalformedRequest("the signer's certificate is missing")
    if len(named) != len(attributes) or not named.keys() <= _REQUIRED | _OPTIONAL:
        raise MalformedRequest("the signed attributes hold one that PAdES does not allow, or one twice")
    if any(len(named.get(oid, ())) != 1 for oid in _REQUIRED):
        raise MalformedRequest("the signed attributes lack content type, message digest or signing certificate")
    if named[_CONTENT_TYPE][0].native != "data":
        raise MalformedRequest("the content type is not that of a PDF signature")
    if named[_MESSAGE_DIGEST][0].native != document_digest.value:
        raise MalformedRequest("the message digest is not that of the document")
    _check_certificate_reference(named[_SIGNING_CERTIFICATE_V2][0], parts.chain[0])
    return SignedParts(attributes, parts.signature, _verify(parts), chain)


def build(parts: SignedParts) -> bytes:
    """The ContentInfo as DER.

    Source: RFC 5652 §5.1, §5.3.
    """
    signer = parts.chain[0]
    info = {
        "version": "v1",
        "sid": cms.SignerIdentifier(
            {"issuer_and_serial_number": {"issuer": signer.issuer, "serial_number": signer.serial_number}}
        ),
        "digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}),
        "signed_attrs": parts.attributes.copy(),
        "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": parts.signature_algorithm}),
        "signature": parts.signature,
    }
    signed_data = cms.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [algos.DigestAlgorithm({"algorithm": "sha256"})],
            "encap_content_info": {"content_type": "data"},
            "certificates": [cms.CertificateChoices("certificate", certificate) for certificate in parts.chain],
            "signer_infos": [cms.SignerInfo(info)],
        }
    )
    der: bytes = cms.ContentInfo({"content_type": "signed_data", "content": signed_data}).dump()
    # The library may encode again what it was given: the octets that were signed must come out as they went in.
    found = signed_attributes_der(cms.ContentInfo.load(der))
    if found != parts.attributes.dump():
        raise MalformedRequest("the signed attributes are not in DER order")
    return der


def signed_attributes_der(content: cms.ContentInfo) -> bytes:
    """The attributes of the only signer as they are signed, a SET OF (RFC 5652 §5.4)."""
    (info,) = content["content"]["signer_infos"]
    encoded: bytes = info["signed_attrs"].dump()
    return b"\x31" + encoded[1:]


def signature_value(content: cms.ContentInfo) -> bytes:
    """The only signer's signature."""
    (info,) = content["content"]["signer_infos"]
    value: bytes = info["signature"].native
    return value


def signature_timestamps(content: cms.ContentInfo) -> list[cms.ContentInfo]:
    """Tokens over the only signer's signature, oldest attribute first."""
    (info,) = content["content"]["signer_infos"]
    unsigned = info["unsigned_attrs"]
    if isinstance(unsigned, core.Void):
        return []
    return [
        token
        for attribute in unsigned
        if attribute["type"].native == "signature_time_stamp_token"
        for token in attribute["values"]
    ]


def token_info(token: cms.ContentInfo) -> tsp.TSTInfo:
    """What a timestamp token says (RFC 3161 §2.4.2)."""
    return token["content"]["encap_content_info"]["content"].parsed


def embedded_certificates(content: cms.ContentInfo) -> list[x509.Certificate]:
    """Certificates that a CMS carries along."""
    choices = content["content"]["certificates"]
    return [] if isinstance(choices, core.Void) else [c.chosen for c in choices if c.name == "certificate"]


def signer_certificate(content: cms.ContentInfo) -> x509.Certificate | None:
    """The certificate of the only signer, if the CMS carries it."""
    (info,) = content["content"]["signer_infos"]
    sid = info["sid"]
    for certificate in embedded_certificates(content):
        if sid.name == "issuer_and_serial_number":
            named = sid.chosen
            found = certificate.serial_number == named["serial_number"].native and certificate.issuer == named["issuer"]
        else:
            found = certificate.key_identifier == sid.chosen.native
        if found:
            return certificate
    return None


def with_timestamp(content: bytes, timestamp_token: bytes) -> bytes:
    """The same CMS with a signature timestamp added; nothing that was signed moves.

    Source: RFC 3161 appendix A, EN 319 122-1 §5.3.
    """
    loaded = cms.ContentInfo.load(content)
    before = signed_attributes_der(loaded)
    (info,) = loaded["content"]["signer_infos"]
    info["unsigned_attrs"] = cms.CMSAttributes(
        [cms.CMSAttribute({"type": "signature_time_stamp_token", "values": [cms.ContentInfo.load(timestamp_token)]})]
    )
    der: bytes = loaded.dump()
    if signed_attributes_der(cms.ContentInfo.load(der)) != before:
        raise MalformedRequest("the signed attributes are not in DER order")
    return der


def _check_certificate_reference(reference: tsp.SigningCertificateV2, signer: bytes) -> None:
    first = reference["certs"][0]
    algorithm = first["hash_algorithm"]["algorithm"].native
    if algorithm != "sha256" or first["cert_hash"].native != sha256(signer).digest():
        raise MalformedRequest("the signing certificate named in the attributes is another one")
    named = first["issuer_serial"]
    if not isinstance(named, core.Void):
        certificate = x509.Certificate.load(signer)
        issuer = named["issuer"][0].chosen
        if named["serial_number"].native != certificate.serial_number or issuer != certificate.issuer:
            raise MalformedRequest("the signing certificate named in the attributes is another one")


def _verify(parts: SignatureParts) -> str:
    """Verify the value over the attributes; gives the signature algorithm's name."""
    try:
        key = load_der_x509_certificate(parts.chain[0]).public_key()
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(parts.signature, parts.to_be_signed, ec.ECDSA(hashes.SHA256()))
                return "sha256_ecdsa"
            case rsa.RSAPublicKey():
                key.verify(parts.signature, parts.to_be_signed, padding.PKCS1v15(), hashes.SHA256())
                return "sha256_rsa"
            case _:
                raise MalformedRequest("the signer's key is neither EC nor RSA")
    except InvalidSignature as error:
        raise MalformedRequest("the signature does not verify with the signer's certificate") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedRequest("the signer's certificate cannot be read") from error
