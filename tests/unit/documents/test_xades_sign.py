"""What we sign, judged by xmlsec1, signxml and our own verification; what is not fit to be released."""

import dataclasses
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from signxml import InvalidDigest
from signxml.xades import XAdESSignatureConfiguration, XAdESVerifier

from documents.model import Level, XAdESOptions
from documents.validate import validate
from documents.xades.finish import finish
from documents.xades.prepare import _free_id, inspect, prepare
from documents.xades.source import scan
from domain.digests import Digest
from domain.errors import (
    CertificateExpired,
    CredentialRevoked,
    DTBSMismatch,
    MalformedRequest,
    RubricaError,
    UnsupportedDocument,
)
from domain.items import Packaging
from tests.testkit.documents import run_tool
from tests.testkit.pki import InMemoryPKI
from tests.testkit.xades import CASES, OCTETS, PLAIN_XML, XML, XML_WITHOUT_COMMENT, sign_parts, signed

ENVELOPED = CASES["enveloped"][1]
KEYS = ("citizen", "rsa_citizen")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("case", CASES)
def test_xmlsec1_accepts_it_and_nothing_changed(case, key, pki, request, tmp_path):
    citizen = request.getfixturevalue(key)
    original, options = CASES[case]
    output = signed(original, options, citizen, pki.trust, commitment_type="proof_of_approval")
    (tmp_path / "signed.xml").write_bytes(output)
    (tmp_path / "cert.pem").write_bytes(citizen.certificate.public_bytes(Encoding.PEM))
    # It finds a detached file by the name in the reference, unescaped.
    (tmp_path / (options.content_name or "unused")).write_bytes(original)
    properties = "http://uri.etsi.org/01903/v1.3.2#:SignedProperties"
    command = ("xmlsec1", "--verify", "--id-attr:Id", properties, "--enabled-key-data", "rsa,ec,key-name")
    said = run_tool(*command, "--pubkey-cert-pem", "cert.pem", "signed.xml", cwd=tmp_path)
    assert "SignedInfo References (ok/all): 2/2" in said
    broken = output.replace(b"<xades:SigningTime>2", b"<xades:SigningTime>3")
    (tmp_path / "signed.xml").write_bytes(broken)
    with pytest.raises(AssertionError, match="FAIL"):
        run_tool(*command, "--pubkey-cert-pem", "cert.pem", "signed.xml", cwd=tmp_path)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("case", CASES)
def test_signxml_accepts_it(case, key, pki, request):
    citizen = request.getfixturevalue(key)
    original, options = CASES[case]
    # signxml writes documents anew in ASCII and so cannot read elements with letters beyond it.
    original = PLAIN_XML if original == XML else original
    output = signed(original, options, citizen, pki.trust)

    def resolve(uri):
        assert unquote(uri) == options.content_name
        return original

    def verify(data):
        return XAdESVerifier().verify(
            data,
            x509_cert=citizen.certificate,
            uri_resolver=resolve,
            expect_config=XAdESSignatureConfiguration(expect_references=2),
        )

    assert len(verify(output)) == 2
    with pytest.raises(InvalidDigest, match="mismatch"):
        verify(output.replace(b"<xades:SigningTime>2", b"<xades:SigningTime>3"))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("case", CASES)
def test_our_report(case, key, pki, request):
    citizen = request.getfixturevalue(key)
    original, options = CASES[case]
    output = signed(original, options, citizen, pki.trust)
    report = validate(BytesIO(output), pki.trust, datetime.now(UTC), content=Digest.of(original))
    assert report.indication == "TOTAL-PASSED"
    (one,) = report.signatures
    assert (one.level, one.algorithm) == ("B-B", "ES256" if key == "citizen" else "RS256")
    assert one.certificate_serial == f"{citizen.certificate.serial_number:x}"
    assert one.signing_time is not None
    assert abs(datetime.now(UTC) - one.signing_time) < timedelta(minutes=1)
    assert one.covers_whole_document
    assert not one.changed_since


def test_an_enveloped_signature_leaves_every_octet_of_the_document(pki, citizen):
    for original in (
        XML_WITHOUT_COMMENT,
        b"\xef\xbb\xbf" + PLAIN_XML,
        '<?xml version="1.0" encoding="ISO-8859-1"?><a>ñ</a>'.encode("latin-1"),
        b"<a/>",
        b"<?b </b> ?><a b='>' c=\"/>\"/><?b </a> ?>",
        b"<a><a/></a><?end </a>?>\n",
    ):
        output = signed(original, ENVELOPED, citizen, pki.trust)
        start, end = output.index(b"<ds:Signature "), output.rindex(b"</ds:Signature>") + len(b"</ds:Signature>")
        rest = output[:start] + output[end:]
        assert rest == original or rest.replace(b"></a>", b"/>") == original
        assert validate(BytesIO(output), pki.trust, datetime.now(UTC)).indication == "TOTAL-PASSED"


WITHOUT = [
    (
        b"<!-- a --><?b c?><a><!---->1<!-- 2 -->3<?d e?></a><!--->--><?f g?>\n",
        b"<?b c?><a>13<?d e?></a><?f g?>\n",
        b"<a>13<?d e?></a>\n",
    ),
    (
        *["<?xml version='1.0' encoding='iso-8859-1'?><ñ><!-- ñ -->ñ</ñ><!-- ñ -->".encode("latin-1")],
        *["<?xml version='1.0' encoding='iso-8859-1'?><ñ>ñ</ñ>".encode("latin-1")] * 2,
    ),
    (b"<a b='-->'><![CDATA[<!-- 1 -->]]></a>",) * 3,
    (b"<a>]]<!-- -->&gt;</a><!-- 1 -->", *[b"<a>]]&gt;</a>"] * 2),
]
"""What is left of a document before it is shown and signed: itself, enveloped, enveloping."""


@pytest.mark.parametrize(("original", "enveloped", "enveloping"), WITHOUT)
def test_what_no_signature_covers_is_taken_out_before_it_is_shown(original, enveloped, enveloping, pki, citizen):
    for packaging, expected in (
        (Packaging.ENVELOPED, enveloped),
        (Packaging.ENVELOPING, enveloping),
        (Packaging.DETACHED, original),
    ):
        options = XAdESOptions(packaging=packaging, mime_type="application/xml", content_name="a.xml")
        document = BytesIO(original)
        inspect(document, options)
        assert document.getvalue() == original
        prepared = prepare(document, options)
        assert document.getvalue() == expected
        parts = sign_parts(prepared, options, citizen)
        finish(document, prepared.state, parts, level=Level.B_B, trust=pki.trust, now=datetime.now(UTC))
        report = validate(BytesIO(document.getvalue()), pki.trust, datetime.now(UTC), content=Digest.of(expected))
        (one,) = report.signatures
        assert (one.indication, one.changed_since, one.covers_whole_document) == ("TOTAL-PASSED", False, True)


def test_a_comment_that_cannot_be_taken_out_is_refused():
    # Together the two halves are what XML forbids.
    with pytest.raises(UnsupportedDocument, match="broken"):
        prepare(BytesIO(b"<a>]]<!-- -->></a>"), ENVELOPED)


def test_ids_are_those_of_no_other_element():
    first = prepare(BytesIO(XML), ENVELOPED).fields["signature_id"]
    assert prepare(BytesIO(XML), ENVELOPED).fields["signature_id"] == first
    # A document cannot hold its own digest, so the collision is told to the function that draws.
    holds_it = scan(f'<a Id="{first}-object"/>'.encode())
    assert _free_id(None, sha256(XML_WITHOUT_COMMENT).digest()) == first
    assert _free_id(holds_it, sha256(XML_WITHOUT_COMMENT).digest()) not in {first, ""}


def test_what_cannot_be_signed_says_why():
    octets = XAdESOptions(packaging=Packaging.ENVELOPED, mime_type="application/pdf")
    nameless = XAdESOptions(packaging=Packaging.DETACHED, mime_type="text/plain")
    typeless = XAdESOptions(packaging=Packaging.DETACHED, mime_type="Text/Plain; a=b", content_name="a")
    cases = [
        (b"%PDF-1.7", octets, "only XML"),
        (b"x", nameless, "name"),
        (b"x", typeless, "MIME"),
        (b"", ENVELOPED, "empty"),
        (b'<a><Signature xmlns="http://www.w3.org/2000/09/xmldsig#"/></a>', ENVELOPED, "signed already"),
        (b'<a xmlns="relative/name"/>', ENVELOPED, "broken"),
    ]
    for data, options, why in cases:
        for act in (inspect, prepare):
            with pytest.raises(UnsupportedDocument, match=why):
                act(BytesIO(data), options)


@pytest.mark.parametrize("case", CASES)
def test_parts_that_are_not_of_this_document_are_not_released(case, pki, citizen, rsa_citizen):
    original, options = CASES[case]
    other = XML.replace(b"Bego", b"Bega") if original == XML else OCTETS[1:]
    ready = BytesIO(original)
    prepared = prepare(ready, options)
    good = sign_parts(prepared, options, citizen)
    theirs = sign_parts(prepare(BytesIO(other), options), options, citizen)
    flipped = bytes([good.signature[0] ^ 1]) + good.signature[1:]
    wrong = {
        "another document": theirs,
        "another value": dataclasses.replace(good, signature=flipped),
        "another certificate": dataclasses.replace(good, chain=rsa_citizen.chain),
        "other properties": dataclasses.replace(
            good, signed_properties=good.signed_properties.replace(b"SigningTime>2", b"SigningTime>3")
        ),
        "more than was signed": dataclasses.replace(good, to_be_signed=good.to_be_signed + b"<ds:X/>"),
        "not canonical": dataclasses.replace(good, to_be_signed=good.to_be_signed.replace(b' Id="', b'  Id="')),
        "no certificate": dataclasses.replace(good, chain=()),
        "not a certificate": dataclasses.replace(good, chain=(b"x",)),
    }
    for name, parts in wrong.items():
        document = BytesIO(ready.getvalue())
        with pytest.raises(RubricaError):
            finish(document, prepared.state, parts, level=Level.B_B, trust=pki.trust, now=datetime.now(UTC))
        assert document.getvalue() == ready.getvalue(), name
    document = BytesIO(ready.getvalue())
    finish(document, prepared.state, good, level=Level.B_B, trust=pki.trust, now=datetime.now(UTC))
    assert document.getvalue() != ready.getvalue()


def test_a_document_that_changed_since_is_not_signed(pki, citizen):
    document = BytesIO(XML)
    prepared = prepare(document, ENVELOPED)
    parts = sign_parts(prepared, ENVELOPED, citizen)
    changed = BytesIO(XML + b"\n")
    with pytest.raises(DTBSMismatch):
        finish(changed, prepared.state, parts, level=Level.B_B, trust=pki.trust, now=datetime.now(UTC))
    with pytest.raises(MalformedRequest):
        finish(document, b"{}", parts, level=Level.B_B, trust=pki.trust, now=datetime.now(UTC))
    with pytest.raises(MalformedRequest, match="B-B"):
        finish(document, prepared.state, parts, level=Level.B_T, trust=pki.trust, now=datetime.now(UTC))


def test_a_signer_who_cannot_sign_now():
    pki = InMemoryPKI()
    citizen = pki.certify()
    ready = BytesIO(XML)
    prepared = prepare(ready, ENVELOPED)
    parts = sign_parts(prepared, ENVELOPED, citizen)
    late = datetime.now(UTC) + timedelta(days=5000)
    with pytest.raises(CertificateExpired):
        finish(ready, prepared.state, parts, level=Level.B_B, trust=pki.trust, now=late)
    strangers = InMemoryPKI().trust
    with pytest.raises(MalformedRequest, match="trusted"):
        finish(ready, prepared.state, parts, level=Level.B_B, trust=strangers, now=datetime.now(UTC))
    pki.revoke(citizen)
    with pytest.raises(CredentialRevoked):
        finish(ready, prepared.state, parts, level=Level.B_B, trust=pki.trust, now=datetime.now(UTC))
