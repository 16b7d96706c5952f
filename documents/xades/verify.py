"""Verifies one XML signature of level B-B, and says which data it covers.

Stricter than XML Signature allows: only the three shapes of ``domain.xmldsig`` are accepted, each element where it
belongs and nothing beside, so that what was verified and what a reader takes for signed cannot be two things
(signature wrapping). Trust in the certificate is another matter: ``documents.xades.validate``.
"""

import binascii
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256

from asn1crypto import tsp, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import load_der_x509_certificate
from lxml import etree

from documents.xades import source
from documents.xades.source import Element, Source, Tree
from domain import xmldsig
from domain.algorithms import SignatureAlgorithm
from domain.digests import Digest, DigestAlgorithm
from domain.items import Packaging

_DS, _XADES = f"{{{xmldsig.DSIG}}}", f"{{{xmldsig.XADES}}}"
_ID_NAMES = frozenset({"Id", "ID", "id", "{http://www.w3.org/XML/1998/namespace}id"})
_ALGORITHMS = {uri: algorithm for algorithm, uri in xmldsig.SIGNATURE_METHODS.items()}
_ES256_BYTES = 64
_CERTIFICATES_LIMIT = 8

FAILED, INDETERMINATE = "TOTAL-FAILED", "INDETERMINATE"


class NotVerified(Exception):
    """The signature does not hold, in the words of EN 319 102-1 §5.1.3."""

    def __init__(self, indication: str, sub_indication: str, explanation: str) -> None:
        super().__init__(explanation)
        self.indication = indication
        self.sub_indication = sub_indication
        self.explanation = explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A signature whose value, references and certificate digest hold."""

    signature_id: str
    packaging: Packaging
    uri: str
    """Of the signed data."""
    chain: tuple[bytes, ...]
    """Certificates, DER, the signer's first; nobody has vouched for them yet."""
    algorithm: SignatureAlgorithm
    signing_time: datetime
    """As the signer claims."""
    signed_info: bytes
    signed_properties: bytes
    """Both in exclusive C14N."""
    covers_all: bool
    """There is nothing in the file that could be changed without anybody noticing: no comment, for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a signature says of itself, verified or not; empty where it cannot be read."""

    certificate: bytes = b""
    """DER; the one that the signed properties name, or else the first."""
    algorithm: str = ""
    signing_time: datetime | None = None


def claimed(document: Source, number: int) -> Claimed:
    """What signature ``number`` of ``document`` says of its signer, its time and its algorithm; nothing is checked."""
    signature = list(document.tree().getroot().iter(source.SIGNATURE))[number]
    found = Claimed()
    digest, certificates = b"", []
    for element in signature.findall(f"{_DS}KeyInfo/{_DS}X509Data/{_DS}X509Certificate"):
        with suppress(NotVerified, ValueError):
            certificates.append(x509.Certificate.load(_base64(element), strict=True).dump())
    named = signature.find(f".//{_XADES}SigningCertificateV2/{_XADES}Cert/{_XADES}CertDigest/{_DS}DigestValue")
    with suppress(NotVerified):
        digest = b"" if named is None else _base64(named)
    certificates.sort(key=lambda der: sha256(der).digest() != digest)
    method = signature.find(f"{_DS}SignedInfo/{_DS}SignatureMethod")
    algorithm = None if method is None else _ALGORITHMS.get(method.get("Algorithm", ""))
    time = signature.find(f".//{_XADES}SignedSignatureProperties/{_XADES}SigningTime")
    with suppress(NotVerified):
        found = replace(found, signing_time=None if time is None else _moment(time.text or ""))
    return replace(
        found,
        certificate=certificates[0] if certificates else b"",
        algorithm=algorithm.value if algorithm else "",
    )


def verify(document: Source, number: int, content: Digest | None) -> Verified:
    """Verify signature ``number`` of ``document``, from 0 in document order.

    Args:
        document: As read.
        number: Less than ``document.signatures``.
        content: Of the file beside the signature, where the caller has one.

    Raises:
        NotVerified: It does not hold; says why.

    Source: XML Signature 1.1 §3.2, EN 319 132-1 §5.2, EN 319 102-1 §5.2.
    """
    tree = document.tree()
    root = tree.getroot()
    signature = list(root.iter(source.SIGNATURE))[number]
    ids = _ids(root)
    signature_id, parts = _parts(signature, ids)
    algorithm, data_reference, properties_reference = _signed_info(parts.signed_info)
    signed_info = source.exclusive(parts.signed_info)
    signed_properties = source.exclusive(parts.signed_properties)

    # The certificate that the signed properties name, and no other, verifies the value.
    chain = _chain(parts.key_info)
    signing_time, chain = _signed_signature_properties(parts.signed_properties, chain)
    _verify_value(algorithm, chain[0], _base64(parts.value), signed_info)

    if sha256(signed_properties).digest() != properties_reference.digest:
        raise NotVerified(FAILED, "HASH_FAILURE", "the signed properties were changed after signing")
    _same_id(parts.signed_properties, properties_reference, ids)
    _about_the_data(parts.signed_properties, data_reference, ids)
    covers_all = not _has_uncovered(document, signature, parts)
    # Last, as the enveloped-signature transform takes the tree apart.
    packaging = _verify_data(tree, signature, parts, data_reference, content, ids)
    return Verified(
        signature_id=signature_id,
        packaging=packaging,
        uri=data_reference.uri or "",
        chain=chain,
        algorithm=algorithm,
        signing_time=signing_time,
        signed_info=signed_info,
        signed_properties=signed_properties,
        covers_all=covers_all,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    signed_info: Element
    value: Element
    key_info: Element
    data: Element | None
    """The ``ds:Object`` around the data, where the signature is enveloping."""
    signed_properties: Element
    is_root: bool


def _parts(signature: Element, ids: Counter[str]) -> tuple[str, _Parts]:
    """Every child of the signature by its place; none may be there that is not known."""
    children = _children(signature)
    expected = [f"{_DS}SignedInfo", f"{_DS}SignatureValue", f"{_DS}KeyInfo"]
    if [child.tag for child in children[:3]] != expected or {child.tag for child in children[3:]} != {f"{_DS}Object"}:
        raise _broken("the signature is not put together as XML signatures are")
    holders = [child for child in children[3:] if _is_properties_object(child)]
    data = [child for child in children[3:] if not _is_properties_object(child)]
    if len(holders) != 1 or len(data) > 1:
        raise _broken("the signature holds no signed properties, or more than it should")
    (qualifying,) = _children(holders[0])
    inside = _children(qualifying)
    if not inside or inside[0].tag != f"{_XADES}SignedProperties" or len(inside) > 1:
        raise _unknown("the signature holds properties that are not signed")
    signature_id = signature.get("Id", "")
    if not signature_id or qualifying.get("Target") != f"#{signature_id}":
        raise _broken("the signed properties are those of another signature")
    _only(signature_id, ids)
    signed_info, value, key_info = children[:3]
    _no_hidden_text(signed_info, value, key_info, holders[0])
    parts = _Parts(signed_info, value, key_info, data[0] if data else None, inside[0], signature.getparent() is None)
    return signature_id, parts


def _has_uncovered(document: Source, signature: Element, parts: _Parts) -> bool:
    """Comments anywhere, as no canonicalisation that is accepted keeps them; instructions where no digest reaches."""
    if document.comments or (parts.is_root and document.outer_instructions):
        return True
    within = [] if parts.data is None else list(parts.data.iter(etree.PI))
    return len(list(signature.iter(etree.PI))) > len(within)


def _no_hidden_text(*elements: Element) -> None:
    """Comments and instructions cut texts in two, of which programs read the first and digests are over both."""
    if any(not isinstance(inner.tag, str) for element in elements for inner in element.iter()):
        raise _broken("there are comments or processing instructions within the signature")


def _is_properties_object(element: Element) -> bool:
    children = _children(element) if not (element.text or "").strip() else []
    return [child.tag for child in children] == [f"{_XADES}QualifyingProperties"]


@dataclass(frozen=True, slots=True)
class _Reference:
    id: str
    uri: str | None
    type: str
    transforms: tuple[str, ...]
    digest: bytes


def _signed_info(signed_info: Element) -> tuple[SignatureAlgorithm, _Reference, _Reference]:
    """The algorithm, the reference to the data, and the one to the signed properties."""
    children = _children(signed_info)
    if [child.tag for child in children[:2]] != [f"{_DS}CanonicalizationMethod", f"{_DS}SignatureMethod"]:
        raise _broken("the signature does not say how it was made")
    canonicalisation, method = children[:2]
    references = [_reference(element) for element in children[2:]]
    if canonicalisation.get("Algorithm") != xmldsig.EXCLUSIVE_C14N or len(canonicalisation) or len(method):
        raise _unknown("the signature uses a canonicalisation that this service does not verify")
    algorithm = _ALGORITHMS.get(method.get("Algorithm", ""))
    if algorithm is None:
        raise _unknown("the signature uses an algorithm that this service does not verify")
    about_properties = [one for one in references if one.type == xmldsig.SIGNED_PROPERTIES_TYPE]
    about_data = [one for one in references if one.type != xmldsig.SIGNED_PROPERTIES_TYPE]
    if len(about_properties) != 1 or len(about_data) != 1:
        raise _unknown("the signature is over more or less than one document and its own properties")
    if about_properties[0].transforms != (xmldsig.EXCLUSIVE_C14N,):
        raise _unknown("the signed properties are transformed in a way that this service does not verify")
    return algorithm, about_data[0], about_properties[0]


def _reference(element: Element) -> _Reference:
    if element.tag != f"{_DS}Reference":
        raise _broken("the signature does not say what it is over")
    children = _children(element)
    transforms: tuple[str, ...] = ()
    if children and children[0].tag == f"{_DS}Transforms":
        steps = _children(children.pop(0))
        if any(step.tag != f"{_DS}Transform" or len(step) for step in steps):
            raise _unknown("the signed data is transformed in a way that this service does not verify")
        transforms = tuple(step.get("Algorithm", "") for step in steps)
    if [child.tag for child in children] != [f"{_DS}DigestMethod", f"{_DS}DigestValue"]:
        raise _broken("a reference of the signature has no digest")
    if children[0].get("Algorithm") != xmldsig.DIGEST_METHODS[DigestAlgorithm.SHA256]:
        raise _unknown("the signature uses a digest that this service does not verify")
    return _Reference(
        element.get("Id", ""), element.get("URI"), element.get("Type", ""), transforms, _base64(children[1])
    )


def _verify_data(
    tree: Tree,
    signature: Element,
    parts: _Parts,
    reference: _Reference,
    content: Digest | None,
    ids: Counter[str],
) -> Packaging:
    """Recompute the digest of what the signature refers to, in one of the three shapes that are known."""
    match reference:
        case _Reference(uri="", type="", transforms=(xmldsig.ENVELOPED_SIGNATURE, xmldsig.EXCLUSIVE_C14N)):
            if parts.is_root or parts.data is not None:
                raise _broken("the signature says that it stands within the document, and does not")
            packaging, octets = Packaging.ENVELOPED, _without_signature(tree, signature)
        case _Reference(uri=str(uri), type=xmldsig.OBJECT_TYPE, transforms=(transform,)) if uri.startswith("#"):
            if parts.data is None or parts.data.get("Id") != uri[1:]:
                raise _broken("the signed data is not where the signature has it")
            _only(uri[1:], ids)
            packaging, octets = Packaging.ENVELOPING, _enveloped_octets(parts.data, transform)
        case _Reference(uri=str(uri), type="", transforms=()) if uri and not uri.startswith("#"):
            if parts.data is not None:
                raise _broken("the signature holds data that it does not cover")
            return _verify_content(parts, reference, content)
        case _:
            raise _unknown("the signature refers to its data in a way that this service does not verify")
    if sha256(octets).digest() != reference.digest:
        raise NotVerified(FAILED, "HASH_FAILURE", "the document was changed after signing")
    if packaging is Packaging.ENVELOPING and not parts.is_root:
        raise _uncovered()
    return packaging


def _verify_content(parts: _Parts, reference: _Reference, content: Digest | None) -> Packaging:
    if content is None:
        raise NotVerified(INDETERMINATE, "SIGNED_DATA_NOT_FOUND", "the signed file, which lies beside, was not given")
    if content.algorithm is not DigestAlgorithm.SHA256 or content.value != reference.digest:
        raise NotVerified(FAILED, "HASH_FAILURE", "the file given is not the one that was signed")
    if not parts.is_root:
        raise _uncovered()
    return Packaging.DETACHED


def _without_signature(tree: Tree, signature: Element) -> bytes:
    """The enveloped-signature transform (XML Signature 1.1 §6.6.4); ``tree`` loses its signature."""
    before, parent = signature.getprevious(), signature.getparent()
    if signature.tail:
        if before is not None:
            before.tail = (before.tail or "") + signature.tail
        else:
            parent.text = (parent.text or "") + signature.tail
        signature.tail = None
    parent.remove(signature)
    return source.exclusive_document(tree)


def _enveloped_octets(data: Element, transform: str) -> bytes:
    if transform == xmldsig.EXCLUSIVE_C14N:
        return source.exclusive(data)
    if transform == xmldsig.BASE64 and not len(data):
        return _base64(data)
    raise _unknown("the signed data is transformed in a way that this service does not verify")


def _chain(key_info: Element) -> tuple[bytes, ...]:
    if any(not element.tag.startswith(_DS) for element in key_info.iter()):
        raise _unknown("the signature holds content that it does not cover")
    found = [
        _base64(certificate)
        for data in _children(key_info)
        if data.tag == f"{_DS}X509Data"
        for certificate in _children(data)
        if certificate.tag == f"{_DS}X509Certificate"
    ]
    if not 1 <= len(found) <= _CERTIFICATES_LIMIT:
        raise NotVerified(INDETERMINATE, "NO_SIGNING_CERTIFICATE_FOUND", "the signature brings no certificate along")
    return tuple(found)


def _signed_signature_properties(
    signed_properties: Element, chain: tuple[bytes, ...]
) -> tuple[datetime, tuple[bytes, ...]]:
    """Signing time, and the chain with the certificate that the signer named in front."""
    certs = signed_properties.findall(f"{_XADES}SignedSignatureProperties/{_XADES}SigningCertificateV2/{_XADES}Cert")
    times = signed_properties.findall(f"{_XADES}SignedSignatureProperties/{_XADES}SigningTime")
    if not certs or len(times) != 1:
        raise _unknown("the signature is of no XAdES baseline level: signing time or certificate are not signed")
    methods = certs[0].findall(f"{_XADES}CertDigest/{_DS}DigestMethod")
    values = certs[0].findall(f"{_XADES}CertDigest/{_DS}DigestValue")
    if len(methods) != 1 or len(values) != 1:
        raise _broken("the signed properties do not name the certificate")
    if methods[0].get("Algorithm") != xmldsig.DIGEST_METHODS[DigestAlgorithm.SHA256]:
        raise _unknown("the signature uses a digest that this service does not verify")
    named = [der for der in chain if sha256(der).digest() == _base64(values[0])]
    if not named:
        raise NotVerified(
            INDETERMINATE, "NO_SIGNING_CERTIFICATE_FOUND", "the certificate is not the one that the signer named"
        )
    serials = certs[0].findall(f"{_XADES}IssuerSerialV2")
    if any(not _is_issuer_serial(_base64(serial), named[0]) for serial in serials):
        raise NotVerified(
            INDETERMINATE, "NO_SIGNING_CERTIFICATE_FOUND", "the certificate is not the one that the signer named"
        )
    return _moment(times[0].text or ""), (named[0], *(der for der in chain if der != named[0]))


def _is_issuer_serial(der: bytes, certificate: bytes) -> bool:
    try:
        named = tsp.IssuerSerial.load(der, strict=True)
        parsed = x509.Certificate.load(certificate, strict=True)
        return bool(
            named["serial_number"].native == parsed.serial_number and named["issuer"][0].chosen == parsed.issuer
        )
    except (ValueError, TypeError, IndexError):
        return False


def _about_the_data(signed_properties: Element, reference: _Reference, ids: Counter[str]) -> None:
    """EN 319 132-1 §6.3: the format of the data is signed, and it is told of this reference."""
    formats = signed_properties.findall(f"{_XADES}SignedDataObjectProperties/{_XADES}DataObjectFormat")
    if not reference.id or [one.get("ObjectReference") for one in formats] != [f"#{reference.id}"]:
        raise _unknown("the signature is of no XAdES baseline level: it does not say what kind of document is signed")
    _only(reference.id, ids)


def _verify_value(algorithm: SignatureAlgorithm, certificate: bytes, value: bytes, signed_info: bytes) -> None:
    try:
        _check_value(algorithm, load_der_x509_certificate(certificate).public_key(), value, signed_info)
    except InvalidSignature:
        raise NotVerified(
            FAILED, "SIG_CRYPTO_FAILURE", "the signature value does not verify with the signer's certificate"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _broken("the signer's certificate cannot be read") from None


def _check_value(algorithm: SignatureAlgorithm, key: object, value: bytes, signed_info: bytes) -> None:
    match algorithm, key:
        case SignatureAlgorithm.ES256, ec.EllipticCurvePublicKey(curve=ec.SECP256R1()) if len(value) == _ES256_BYTES:
            half = _ES256_BYTES // 2
            r, s = int.from_bytes(value[:half], "big"), int.from_bytes(value[half:], "big")
            key.verify(encode_dss_signature(r, s), signed_info, ec.ECDSA(hashes.SHA256()))
        case SignatureAlgorithm.RS256, rsa.RSAPublicKey():
            key.verify(value, signed_info, padding.PKCS1v15(), hashes.SHA256())
        case _:
            raise InvalidSignature


def _same_id(element: Element, reference: _Reference, ids: Counter[str]) -> None:
    """The reference must lead to this very element, and its id to no other one."""
    name = element.get("Id", "")
    if not name or reference.uri != f"#{name}":
        raise _broken("the signature refers to other properties than its own")
    _only(name, ids)


def _ids(root: Element) -> Counter[str]:
    """How many attributes that may be ids have each value."""
    return Counter(value for element in root.iter("*") for name, value in element.items() if name in _ID_NAMES)


def _only(name: str, ids: Counter[str]) -> None:
    if ids[name] != 1:
        raise _broken("an id that the signature relies on is there more than once")


def _children(element: Element) -> list[Element]:
    """Child elements; text between them, which no digest would cover, is not allowed."""
    children = list(element.iterchildren("*"))
    between: Sequence[str | None] = [element.text, *(child.tail for child in element)]
    if any(text and text.strip() for text in between):
        raise _broken("there is text in the signature where none belongs")
    return children


def _base64(element: Element) -> bytes:
    if len(element):
        raise _broken("a value in the signature is not base64")
    try:
        return b64decode("".join((element.text or "").split()), validate=True)
    except (ValueError, binascii.Error):
        raise _broken("a value in the signature is not base64") from None


def _moment(text: str) -> datetime:
    """xsd:dateTime with a zone."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise _broken("the signing time cannot be read") from None
    if moment.tzinfo is None:
        raise _broken("the signing time has no zone")
    return moment.astimezone(UTC)


def _broken(explanation: str) -> NotVerified:
    return NotVerified(FAILED, "FORMAT_FAILURE", explanation)


def _unknown(explanation: str) -> NotVerified:
    return NotVerified(INDETERMINATE, "SIG_CONSTRAINTS_FAILURE", explanation)


def _uncovered() -> NotVerified:
    return NotVerified(INDETERMINATE, "SIG_CONSTRAINTS_FAILURE", "the file holds more than the signature covers")
