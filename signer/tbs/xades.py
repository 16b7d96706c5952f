"""XAdES SignedProperties and SignedInfo, built as the octets that exclusive canonicalisation would give.

Nothing is parsed here: every text that enters is either of a closed alphabet, checked when it was staged, or escaped.
In exclusive C14N an element declares a prefix of its own where no element around it within the same octets does, so
both elements read the same wherever they are put.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import tsp, x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from domain import xmldsig
from domain.algorithms import SignatureAlgorithm
from domain.digests import Digest
from domain.errors import MalformedRequest
from domain.items import Item, Packaging, Reference

COMMITMENT_URIS = {
    # EN 319 132-1 §5.2.3, TS 119 172-1 annex B
    "proof_of_origin": "http://uri.etsi.org/01903/v1.2.2#ProofOfOrigin",
    "proof_of_approval": "http://uri.etsi.org/01903/v1.2.2#ProofOfApproval",
    "proof_of_creation": "http://uri.etsi.org/01903/v1.2.2#ProofOfCreation",
}
_P256_BYTES = 32
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#x9;", "\n": "&#xA;", "\r": "&#xD;"}


@dataclass(frozen=True, slots=True)
class ToBeSigned:
    """Both elements in exclusive C14N."""

    signed_info: bytes
    """What is hashed and signed."""
    signed_properties: bytes
    """What the last reference of ``signed_info`` is over."""


def check_item(item: Item) -> None:
    """Check that ``item`` is one that ``to_be_signed`` builds from; done when it is staged.

    Raises:
        MalformedRequest, AlgorithmNotAllowed: It is not; the detail says why.
    """
    xmldsig.check_references(Packaging(item.packaging), item.references, item.fields.get("signature_id", ""))
    if item.digests:
        raise MalformedRequest("an XML signature has references, not digests")
    if not xmldsig.is_mime_type(item.fields.get("mime_type", "")):
        raise MalformedRequest("an XML signature names the document's MIME type")


def to_be_signed(item: Item, certificate: bytes, signing_time: datetime) -> ToBeSigned:
    """Build what is signed for ``item``, a signature of level B-B.

    Args:
        item: As staged and checked by ``check_item``.
        certificate: The citizen's, DER.
        signing_time: Told to the second.

    Source: EN 319 132-1 §5.2 and §6.3; XML Signature 1.1 §4.4.
    """
    signature_id = item.fields["signature_id"]
    properties = _signed_properties(item, certificate, signing_time)
    references = [
        *(_reference(reference, xmldsig.reference_id(signature_id)) for reference in item.references),
        _reference(
            Reference(
                uri=f"#{xmldsig.properties_id(signature_id)}",
                type=xmldsig.SIGNED_PROPERTIES_TYPE,
                transforms=(xmldsig.EXCLUSIVE_C14N,),
                digest=Digest.of(properties),
            )
        ),
    ]
    signature_method = xmldsig.SIGNATURE_METHODS[SignatureAlgorithm(item.algorithm)]
    signed_info = _element(
        "ds:SignedInfo",
        {"xmlns:ds": xmldsig.DSIG},
        _element("ds:CanonicalizationMethod", {"Algorithm": xmldsig.EXCLUSIVE_C14N}),
        _element("ds:SignatureMethod", {"Algorithm": signature_method}),
        *references,
    )
    return ToBeSigned(signed_info.encode(), properties)


def signature_value(algorithm: str, signature: bytes) -> bytes:
    """The value as XML signatures have it: ECDSA as *r* ‖ *s* of the curve's width, RSA as it is.

    Source: RFC 9231 §2.3.6.
    """
    if SignatureAlgorithm(algorithm) is SignatureAlgorithm.RS256:
        return signature
    r, s = decode_dss_signature(signature)
    return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")


def _signed_properties(item: Item, certificate: bytes, signing_time: datetime) -> bytes:
    signature_id = item.fields["signature_id"]
    moment = signing_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cert = _element(
        "xades:Cert",
        {},
        _element("xades:CertDigest", {}, *_digest(Digest.of(certificate), {"xmlns:ds": xmldsig.DSIG})),
        _element("xades:IssuerSerialV2", {}, _base64(_issuer_serial(certificate))),
    )
    about_data = [
        _element(
            "xades:DataObjectFormat",
            {"ObjectReference": f"#{xmldsig.reference_id(signature_id)}"},
            _element("xades:MimeType", {}, _text(item.fields["mime_type"])),
        )
    ]
    if "commitment_type" in item.fields:
        commitment = COMMITMENT_URIS[item.fields["commitment_type"]]
        about_data.append(
            _element(
                "xades:CommitmentTypeIndication",
                {},
                _element("xades:CommitmentTypeId", {}, _element("xades:Identifier", {}, commitment)),
                _element("xades:AllSignedDataObjects", {}),
            )
        )
    return _element(
        "xades:SignedProperties",
        {"xmlns:xades": xmldsig.XADES, "Id": xmldsig.properties_id(signature_id)},
        _element(
            "xades:SignedSignatureProperties",
            {},
            _element("xades:SigningTime", {}, moment),
            _element("xades:SigningCertificateV2", {}, cert),
        ),
        _element("xades:SignedDataObjectProperties", {}, *about_data),
    ).encode()


def _reference(reference: Reference, reference_id: str = "") -> str:
    # C14N orders attributes by name: Id, Type, URI.
    attributes = {"Id": reference_id} if reference_id else {}
    if reference.type:
        attributes["Type"] = reference.type
    attributes["URI"] = reference.uri
    transforms = [_element("ds:Transform", {"Algorithm": name}) for name in reference.transforms]
    return _element(
        "ds:Reference",
        attributes,
        *([_element("ds:Transforms", {}, *transforms)] if transforms else []),
        *_digest(reference.digest, {}),
    )


def _digest(digest: Digest, declarations: Mapping[str, str]) -> tuple[str, str]:
    method = xmldsig.DIGEST_METHODS[digest.algorithm]
    return (
        _element("ds:DigestMethod", {**declarations, "Algorithm": method}),
        _element("ds:DigestValue", declarations, _base64(digest.value)),
    )


def _issuer_serial(certificate: bytes) -> bytes:
    """RFC 5035 §4, IssuerSerial as DER."""
    parsed = x509.Certificate.load(certificate)
    issuer = [x509.GeneralName("directory_name", parsed.issuer)]
    return bytes(tsp.IssuerSerial({"issuer": issuer, "serial_number": parsed.serial_number}).dump())


def _element(name: str, attributes: Mapping[str, str], *content: str) -> str:
    written = "".join(f' {attribute}="{_attribute(value)}"' for attribute, value in attributes.items())
    return f"<{name}{written}>{''.join(content)}</{name}>"


def _text(value: str) -> str:
    """Canonical XML 1.0 §2.3: text nodes escape &, <, > and CR."""
    return "".join(_ESCAPES[sign] if sign in "&<>\r" else sign for sign in value)


def _attribute(value: str) -> str:
    """The same section: attribute values escape &, <, the quotation mark and white space other than spaces."""
    return "".join(_ESCAPES[sign] if sign in '&<"\t\n\r' else sign for sign in value)


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
