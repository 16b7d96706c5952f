"""Forged signatures: each is a good one with one thing changed, and none of them passes."""

import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest

from documents.model import FetchKind
from documents.validate import validate
from domain.digests import Digest
from tests.testkit.documents import fetch_of, trust_without_crls
from tests.testkit.pki import InMemoryPKI
from tests.testkit.xades import CASES, OCTETS, XML, resigned, signed

PROPERTIES = re.compile(
    rb"<ds:Object><xades:QualifyingProperties.*</xades:QualifyingProperties></ds:Object>", re.DOTALL
)
DATA = re.compile(rb'<ds:Object xmlns:ds="[^"]*" Id=.*?</ds:Object>', re.DOTALL)
SIGNATURE = re.compile(rb"<ds:Signature .*</ds:Signature>", re.DOTALL)
DSIG = b"http://www.w3.org/2000/09/xmldsig#"


def judged(data, pki, content=None):
    report = validate(BytesIO(data), pki.trust, datetime.now(UTC), content=content)
    (one,) = report.signatures
    assert one.indication == report.indication
    return one


@pytest.fixture(scope="module")
def enveloped(pki, citizen):
    return signed(XML, CASES["enveloped"][1], citizen, pki.trust)


@pytest.fixture(scope="module")
def enveloping(pki, citizen):
    return signed(XML, CASES["enveloping"][1], citizen, pki.trust)


@pytest.fixture(scope="module")
def octets(pki, citizen):
    return signed(OCTETS, CASES["enveloping-octets"][1], citizen, pki.trust)


@pytest.fixture(scope="module")
def detached(pki, citizen):
    return signed(OCTETS, CASES["detached"][1], citizen, pki.trust)


def changed(data, before, after, count=1):
    assert before in data
    return data.replace(before, after, count)


def test_content_that_changed(pki, enveloped, enveloping, octets, detached):
    for forged in (
        changed(enveloped, b"hijos", b"hija"),
        changed(enveloped, b'<?procedure version="2"?>', b'<?procedure version="3"?>'),
        changed(enveloped, b"<dato>", b"<dato/><dato>"),
        changed(enveloping, b"hijos", b"hija"),
        changed(octets, b64encode(OCTETS), b64encode(OCTETS[1:])),
    ):
        one = judged(forged, pki)
        assert (one.indication, one.sub_indication, one.changed_since) == ("TOTAL-FAILED", "HASH_FAILURE", True)
    one = judged(detached, pki, Digest.of(OCTETS[1:]))
    assert (one.indication, one.sub_indication) == ("TOTAL-FAILED", "HASH_FAILURE")
    one = judged(detached, pki)
    assert (one.indication, one.sub_indication) == ("INDETERMINATE", "SIGNED_DATA_NOT_FOUND")


def test_properties_that_changed(pki, enveloped):
    for before, after in (
        (b"SigningTime>2026", b"SigningTime>2025"),
        (b"MimeType>application/xml", b"MimeType>text/plain"),
    ):
        year = datetime.now(UTC).strftime("%Y").encode()
        one = judged(changed(enveloped, before.replace(b"2026", year), after), pki)
        assert one.changed_since is True
        assert (one.indication, one.sub_indication) == ("TOTAL-FAILED", "HASH_FAILURE")


COMMENT = b"<!-- pagado -->"


def test_what_the_signature_does_not_cover_is_never_unchanged(pki, enveloped, enveloping, octets, detached):
    added = {
        "a comment that parts a text": (enveloped, b"Bego", b"B<!---->ego"),
        "a comment": (enveloped, b"<dato>", COMMENT + b"<dato>"),
        "a comment before": (enveloped, b"<solicitud", COMMENT + b"<solicitud"),
        "a comment behind": (enveloped, b"</solicitud>", b"</solicitud>" + COMMENT),
        "a comment within": (enveloping, b"<dato>", COMMENT + b"<dato>"),
        "a comment in the signature": (enveloping, b"<ds:KeyInfo>", COMMENT + b"<ds:KeyInfo>"),
        "an instruction in the signature": (enveloped, b"<ds:KeyInfo>", b"<?a b?><ds:KeyInfo>"),
        "an instruction around": (octets, b"</ds:Signature>", b"</ds:Signature><?a b?>"),
        "a comment around": (detached, b"<ds:Signature ", COMMENT + b"<ds:Signature "),
    }
    for name, (document, before, after) in added.items():
        content = Digest.of(OCTETS) if document is detached else None
        for data, expected in ((document, False), (changed(document, before, after), None)):
            one = judged(data, pki, content)
            assert (one.indication, one.changed_since) == ("TOTAL-PASSED", expected), (name, one.explanations)
            assert one.covers_whole_document is (expected is False), name
            assert any("comments" in said for said in one.explanations) is (expected is None), name


def test_nothing_is_told_that_nobody_checked(pki, enveloped, detached):
    """Where the digests are not reached, whether it changed is not known; what the file says is told all the same."""
    value = re.search(rb"<ds:SignatureValue[^>]*>([^<]*)", enveloped)[1]
    unsigned = b"<xades:UnsignedProperties><xades:UnsignedSignatureProperties/></xades:UnsignedProperties>"
    whole = judged(enveloped, pki)
    for data, sub_indication in (
        (detached, "SIGNED_DATA_NOT_FOUND"),
        (changed(enveloped, value, b64encode(bytes(64))), "SIG_CRYPTO_FAILURE"),
        (
            changed(enveloped, b"</xades:SignedProperties>", b"</xades:SignedProperties>" + unsigned),
            "SIG_CONSTRAINTS_FAILURE",
        ),
    ):
        one = judged(data, pki)
        assert (one.sub_indication, one.changed_since, one.covers_whole_document) == (sub_indication, None, False)
        assert (one.signer, one.certificate_serial, one.algorithm) == (whole.signer, whole.certificate_serial, "ES256")
        assert one.signer
        assert one.signing_time is not None
        assert one.level == ""


def test_claims_that_cannot_be_read_are_left_out(pki, citizen, enveloped):
    certificate = b64encode(citizen.chain[0])
    for before, after, empty in (
        (certificate, b"AAAA", "certificate_serial"),
        (b"SigningTime>2", b"SigningTime>x2", "signing_time"),
        (b"#ecdsa-sha256", b"#x", "algorithm"),
        (certificate, b"-", "certificate_serial"),
    ):
        one = judged(changed(enveloped, before, after), pki)
        assert one.indication != "TOTAL-PASSED"
        told = {name: getattr(one, name) for name in ("certificate_serial", "signing_time", "algorithm")}
        # Another certificate of the chain stands there in its place.
        missing = {name for name, value in told.items() if not value}
        assert missing == {empty} or (empty == "certificate_serial" and not missing and len(citizen.chain) > 1)


def test_value_and_signed_info_that_changed(pki, enveloped):
    value = re.search(rb"<ds:SignatureValue[^>]*>([^<]*)", enveloped)[1]
    flipped = bytearray(b64decode(value))
    flipped[5] ^= 1
    for forged in (
        changed(enveloped, value, b64encode(flipped)),
        changed(enveloped, value, b64encode(b64decode(value)[:-1])),
        changed(enveloped, value, b""),
        re.sub(rb"<ds:DigestValue>[^<]*", b"<ds:DigestValue>" + b64encode(bytes(32)), enveloped, count=1),
        changed(enveloped, b"ecdsa-sha256", b"rsa-sha256"),
    ):
        one = judged(forged, pki)
        assert (one.indication, one.sub_indication) == ("TOTAL-FAILED", "SIG_CRYPTO_FAILURE")


def test_a_certificate_that_was_swapped(pki, citizen, enveloped):
    other = pki.certify()
    swapped = changed(enveloped, b64encode(citizen.chain[0]), b64encode(other.chain[0]))
    one = judged(swapped, pki)
    assert (one.indication, one.sub_indication) == ("INDETERMINATE", "NO_SIGNING_CERTIFICATE_FOUND")
    # With properties that name the forger's certificate, nothing fits the signed digest and value any more.
    digests = [b64encode(Digest.of(each.chain[0]).value) for each in (citizen, other)]
    one = judged(changed(swapped, *digests), pki)
    assert one.indication != "TOTAL-PASSED"


SIGNED_BY_THE_SIGNER = {
    "XSLT": (b"2000/09/xmldsig#enveloped-signature", b"2001/04/xmlenc#decrypt"),
    "another URI": (b'-reference" URI=""', b'-reference" URI="#s1"'),
    "a file elsewhere": (b'-reference" URI=""', b'-reference" URI="http://127.0.0.1:9/x"'),
    "an XPointer": (b'-reference" URI=""', b'-reference" URI="#xpointer(/)"'),
    "a type": (b'-reference" URI=""', b'-reference" Type="urn:x" URI=""'),
    "inclusive canonicalisation": (
        b'CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"',
        b'CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"',
    ),
    "a weak digest": (b"2001/04/xmlenc#sha256", b"2000/09/xmldsig#sha1"),
    "no properties": (b'Type="http://uri.etsi.org/01903#SignedProperties" ', b""),
    "an XPath after": (
        b'<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>',
        b'<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"></ds:Transform></ds:Transforms>',
    ),
}


@pytest.mark.parametrize("name", SIGNED_BY_THE_SIGNER)
def test_what_even_a_right_value_does_not_make_good(name, pki, citizen, enveloped):
    before, after = SIGNED_BY_THE_SIGNER[name]
    head, tail = enveloped.split(b"<ds:SignedInfo", 1)
    forged = head + b"<ds:SignedInfo" + changed(tail, before, after)
    one = judged(resigned(forged, citizen, b"<ds:SignedInfo", b"<ds:SignedInfo"), pki)
    assert one.indication == "INDETERMINATE"
    assert one.sub_indication == "SIG_CONSTRAINTS_FAILURE"
    assert judged(resigned(enveloped, citizen, b"<ds:SignedInfo", b"<ds:SignedInfo"), pki).indication == "TOTAL-PASSED"


def test_signed_elements_that_were_moved_or_doubled(pki, enveloped, enveloping, octets, detached):
    properties, data = PROPERTIES.search(enveloping)[0], DATA.search(enveloping)[0]
    evil = data.replace(b"hijos", b"hija")
    outside = b"<fuera>" + changed(enveloping, data, evil) + data + b"</fuera>"
    forged = {
        "data moved out of the signature, another in its place": outside,
        "data twice with one id": changed(enveloping, data, data + evil),
        "data first in a second object": changed(enveloping, data, evil + data),
        "data moved out": b"<fuera>" + changed(enveloping, data, b"") + data + b"</fuera>",
        "another id for the evil one": changed(enveloping, data, evil.replace(b"-object", b"-objekt") + data),
        "signature put into another document": b"<fuera><dato>hija</dato>" + enveloping + b"</fuera>",
        "detached put into another document": b"<fuera>" + detached + b"</fuera>",
        "properties twice": changed(enveloping, properties, properties + properties),
        "properties moved": b'<fuera xmlns:ds="'
        + DSIG
        + b'">'
        + changed(enveloping, properties, b"<ds:Object/>")
        + properties
        + b"</fuera>",
        "an id elsewhere": changed(enveloped, b' id="s1"', b' id="' + _id(enveloped) + b'-properties"'),
        "content in the key's place": changed(enveloped, b"<ds:KeyInfo>", b"<ds:KeyInfo><dato>evil</dato>"),
        "content in another object": changed(
            enveloped, b"<ds:Object>", b"<ds:Object><dato>x</dato></ds:Object><ds:Object>"
        ),
        "text in the signature": changed(enveloped, b"<ds:KeyInfo>", b"evil<ds:KeyInfo>"),
        "a comment that hides": changed(enveloped, b"MimeType>appl", b"MimeType><!-- -->appl"),
        "a comment within octets": changed(octets, b64encode(OCTETS), b64encode(OCTETS) + b"<!-- -->AAAA"),
        "unsigned properties": changed(
            enveloped,
            b"</xades:SignedProperties>",
            b"</xades:SignedProperties><xades:UnsignedProperties></xades:UnsignedProperties>",
        ),
        "properties of another": changed(enveloped, b'Target="#', b'Target="#x'),
    }
    for name, document in forged.items():
        content = Digest.of(OCTETS) if name.startswith("detached") else None
        one = judged(document, pki, content)
        assert one.indication != "TOTAL-PASSED", name
        assert one.sub_indication in {"FORMAT_FAILURE", "SIG_CONSTRAINTS_FAILURE"}, name


def _id(document):
    return re.search(rb'<ds:Signature [^>]*Id="([^"]*)"', document)[1]


def test_an_enveloped_signature_moved_within_its_document_still_covers_all_of_it(pki, enveloped):
    signature = SIGNATURE.search(enveloped)[0]
    moved = changed(changed(enveloped, signature, b""), b"</dato>", b"</dato>" + signature)
    assert judged(moved, pki).indication == "TOTAL-PASSED"
    into_another = b"<otro><dato>1</dato>" + signature + b"</otro>"
    assert judged(into_another, pki).sub_indication == "HASH_FAILURE"
    alone = judged(signature, pki)
    assert (alone.indication, alone.sub_indication) == ("TOTAL-FAILED", "FORMAT_FAILURE")


def test_two_signatures_do_not_stand_for_each_other(pki, citizen, enveloped):
    other = signed(XML.replace(b"Bego", b"Bega"), CASES["enveloped"][1], citizen, pki.trust)
    both = changed(enveloped, b"</solicitud>", SIGNATURE.search(other)[0] + b"</solicitud>")
    report = validate(BytesIO(both), pki.trust, datetime.now(UTC))
    assert [one.indication for one in report.signatures] == ["TOTAL-FAILED", "TOTAL-FAILED"]


def test_who_the_signer_is():
    pki = InMemoryPKI()
    citizen = pki.certify()
    document = signed(XML, CASES["enveloped"][1], citizen, pki.trust)
    strangers = judged(document, InMemoryPKI())
    assert (strangers.indication, strangers.sub_indication) == ("INDETERMINATE", "NO_CERTIFICATE_CHAIN_FOUND")

    def at(moment, trust=pki.trust, fetch=None):
        (one,) = validate(BytesIO(document), trust, moment, fetch).signatures
        return one.indication, one.sub_indication

    now = datetime.now(UTC)
    assert at(now) == ("TOTAL-PASSED", "")
    assert at(now, trust_without_crls(pki)) == ("INDETERMINATE", "TRY_LATER")
    assert at(now, trust_without_crls(pki), fetch_of(pki)) == ("TOTAL-PASSED", "")
    assert FetchKind.OCSP in {kind for kind, _ in pki.fetched}
    assert at(now - timedelta(days=1))[0] == "INDETERMINATE"
    assert at(now + timedelta(days=5000))[0] == "INDETERMINATE"
    pki.revoke(citizen)
    now = datetime.now(UTC)
    assert at(now, pki.trust) == ("INDETERMINATE", "REVOKED_NO_POE")
    assert at(now, trust_without_crls(pki), fetch_of(pki)) == ("INDETERMINATE", "REVOKED_NO_POE")


def test_a_document_without_signatures_is_indeterminate(pki):
    report = validate(BytesIO(XML), pki.trust, datetime.now(UTC))
    assert (report.indication, report.signatures) == ("INDETERMINATE", ())
