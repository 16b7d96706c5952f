"""Plays core and edge for XML signatures: software keys, the real builder of SignedInfo, real tools as judges."""

import re
from base64 import b64encode
from datetime import UTC, datetime
from io import BytesIO

from documents.model import Level, Prepared, SignatureParts, TrustMaterial, XAdESOptions
from documents.xades.finish import finish
from documents.xades.prepare import prepare
from domain.algorithms import KeyType
from domain.items import Item, Packaging, Purpose
from signer.tbs import xades
from tests.testkit.pki import Certified

XML = """<?xml version="1.0" encoding="UTF-8"?>
<?procedure version="2"?>
<!-- a comment, which no digest covers -->
<solicitud xmlns="urn:example:solicitud" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" id="s1">
  <nombre xsi:nil='false'>Begoña Núñez &amp; hijos</nombre><vacío/><dato><![CDATA[<1 & 2>]]></dato>
</solicitud>
""".encode()
XML_WITHOUT_COMMENT = XML.replace(b"<!-- a comment, which no digest covers -->", b"")
PLAIN_XML = b'<?xml version="1.0"?>\n<a xmlns="urn:a" xmlns:b="urn:b"><b:c d="1">text &amp;amp; more</b:c><e/></a>\n'
OCTETS = bytes(range(256)) * 5
CASES = {
    "enveloped": (XML, XAdESOptions(packaging=Packaging.ENVELOPED, mime_type="application/xml")),
    "enveloping": (XML, XAdESOptions(packaging=Packaging.ENVELOPING, mime_type="application/xml")),
    "enveloping-octets": (
        OCTETS,
        XAdESOptions(packaging=Packaging.ENVELOPING, mime_type="application/octet-stream"),
    ),
    "detached": (
        OCTETS,
        XAdESOptions(
            packaging=Packaging.DETACHED, mime_type="application/octet-stream", content_name="petición nº 3.bin"
        ),
    ),
}
"""By packaging: a document, and how it is signed."""


def item_of(prepared: Prepared, options: XAdESOptions, key_type: KeyType, **fields: str) -> Item:
    """What the edge would stage."""
    return Item(
        purpose=Purpose.SIGN,
        algorithm={KeyType.P256: "ES256", KeyType.RSA3072: "RS256"}[key_type],
        format="xades",
        packaging=options.packaging.value,
        references=prepared.references,
        title="Solicitud",
        fields={**prepared.fields, **fields},
    )


def sign_parts(prepared: Prepared, options: XAdESOptions, citizen: Certified, **fields: str) -> SignatureParts:
    """What the core would answer."""
    item = item_of(prepared, options, citizen.key_type, **fields)
    xades.check_item(item)
    both = xades.to_be_signed(item, citizen.chain[0], datetime.now(UTC))
    value = xades.signature_value(item.algorithm, citizen.sign(both.signed_info))
    return SignatureParts(both.signed_info, value, citizen.chain, both.signed_properties)


def signed(original: bytes, options: XAdESOptions, citizen: Certified, trust: TrustMaterial, **fields: str) -> bytes:
    """``original`` signed: the document, or the detached signature."""
    document = BytesIO(original)
    prepared = prepare(document, options)
    parts = sign_parts(prepared, options, citizen, **fields)
    finish(document, prepared.state, parts, level=Level.B_B, trust=trust, now=datetime.now(UTC))
    return document.getvalue()


def resigned(document: bytes, citizen: Certified, before: bytes, after: bytes) -> bytes:
    """``document`` with a change within its SignedInfo and a value that is right again: a forger who is the signer."""
    assert before in document
    changed = document.replace(before, after)
    (info,) = re.findall(rb"<ds:SignedInfo.*</ds:SignedInfo>", changed, re.DOTALL)
    algorithm = {KeyType.P256: "ES256", KeyType.RSA3072: "RS256"}[citizen.key_type]
    value = xades.signature_value(algorithm, citizen.sign(info))
    return re.sub(rb"(<ds:SignatureValue[^>]*>)[^<]*", lambda found: found[1] + b64encode(value), changed, count=1)
