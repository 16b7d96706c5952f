"""Names of XML Signature and XAdES, and the closed list of what a signature of ours may refer to.

Sources: XML Signature 1.1 (W3C, 2013), Exclusive XML Canonicalization 1.0, RFC 9231 (algorithm names), EN 319 132-1.
"""

import re
from collections.abc import Mapping, Sequence

from domain.algorithms import SignatureAlgorithm
from domain.digests import DigestAlgorithm
from domain.errors import AlgorithmNotAllowed, MalformedRequest
from domain.items import Packaging, Reference

DSIG = "http://www.w3.org/2000/09/xmldsig#"
XADES = "http://uri.etsi.org/01903/v1.3.2#"

EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED_SIGNATURE = f"{DSIG}enveloped-signature"
BASE64 = f"{DSIG}base64"
OBJECT_TYPE = f"{DSIG}Object"
SIGNED_PROPERTIES_TYPE = "http://uri.etsi.org/01903#SignedProperties"

DIGEST_METHODS: Mapping[DigestAlgorithm, str] = {DigestAlgorithm.SHA256: "http://www.w3.org/2001/04/xmlenc#sha256"}
SIGNATURE_METHODS: Mapping[SignatureAlgorithm, str] = {
    SignatureAlgorithm.ES256: "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
    SignatureAlgorithm.RS256: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
}

_BEFORE_MARKUP = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
"""Byte order marks, and white space of one to four octets."""
_SIGNATURE_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_EXTERNAL_URI = re.compile(r"(?:[A-Za-z0-9_~-]|%[0-9A-F]{2})(?:[A-Za-z0-9._~-]|%[0-9A-F]{2}){0,1999}", re.ASCII)
"""A relative reference of one path segment (RFC 3986 §3.3): a file beside the signature, never a place elsewhere."""
_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$^_.+-]{0,63}/[a-z0-9][a-z0-9!#$^_.+-]{0,63}", re.ASCII)


BEGINNING_BYTES = 64
"""So much of a file tells whether it is XML."""


def begins_as_xml(octets: bytes) -> bool:
    """Whether a file with these first octets is to be read as XML, of whatever encoding (XML 1.0 appendix F)."""
    return octets[:BEGINNING_BYTES].lstrip(_BEFORE_MARKUP).startswith(b"<")


def object_id(signature_id: str) -> str:
    """Of the ``ds:Object`` around enveloped data."""
    return f"{signature_id}-object"


def reference_id(signature_id: str) -> str:
    """Of the reference to the signed data."""
    return f"{signature_id}-reference"


def properties_id(signature_id: str) -> str:
    """Of the ``SignedProperties``."""
    return f"{signature_id}-properties"


def value_id(signature_id: str) -> str:
    """Of the ``SignatureValue``."""
    return f"{signature_id}-value"


def is_mime_type(text: str) -> bool:
    """Type and subtype in lower case, without parameters (RFC 6838 §4.2)."""
    return _MIME_TYPE.fullmatch(text) is not None


def check_references(packaging: Packaging, references: Sequence[Reference], signature_id: str) -> None:
    """Check that ``references`` are what a signature of this packaging refers to, and nothing more.

    * enveloped: the whole document that the signature stands in, less the signature
    * enveloping: the signature's own ``ds:Object``, as XML or as the octets of its base64
    * detached: the octets of one file beside the signature

    Raises:
        MalformedRequest: Another number of references, another URI, type or transform.
        AlgorithmNotAllowed: A digest other than SHA-256.
    """
    if _SIGNATURE_ID.fullmatch(signature_id) is None:
        raise MalformedRequest("an XML signature needs an id of up to 64 letters, digits, hyphens and underscores")
    if len(references) != 1:
        raise MalformedRequest("an XML signature is of exactly one document")
    (reference,) = references
    if reference.digest.algorithm not in DIGEST_METHODS:
        raise AlgorithmNotAllowed("the digest of an XML reference must be SHA-256")
    if packaging is Packaging.ENVELOPED:
        allowed = (reference.uri, reference.type, reference.transforms) == (
            "",
            "",
            (ENVELOPED_SIGNATURE, EXCLUSIVE_C14N),
        )
    elif packaging is Packaging.ENVELOPING:
        allowed = (reference.uri, reference.type) == (f"#{object_id(signature_id)}", OBJECT_TYPE)
        allowed = allowed and reference.transforms in {(EXCLUSIVE_C14N,), (BASE64,)}
    else:
        allowed = _EXTERNAL_URI.fullmatch(reference.uri) is not None
        allowed = allowed and (reference.type, reference.transforms) == ("", ())
    if not allowed:
        raise MalformedRequest(f"the reference is not one of those that an {packaging} XML signature may have")
