"""SignedInfo and SignedProperties byte by byte, what STAGE refuses, and the same bytes in every attempt."""

import hashlib
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from lxml import etree

from domain import xmldsig
from domain.algorithms import KeyType
from domain.digests import Digest, DigestAlgorithm
from domain.errors import AlgorithmNotAllowed, DependencyUnavailable, MalformedRequest, RubricaError
from domain.items import Item, Packaging, Purpose, Reference, certificate_item
from hsm.errors import HSMError
from signer import tables
from signer.tbs import xades
from tests.testkit.core import a_document, playing
from tests.testkit.pki import InMemoryPKI

MOMENT = datetime(2026, 11, 22, 18, 5, 9, 999999, tzinfo=UTC)
ENVELOPED = Reference(
    uri="", transforms=(xmldsig.ENVELOPED_SIGNATURE, xmldsig.EXCLUSIVE_C14N), digest=Digest.of(b"document")
)
ENVELOPING = Reference(
    uri="#s-1-object", type=xmldsig.OBJECT_TYPE, transforms=(xmldsig.BASE64,), digest=Digest.of(b"document")
)
DETACHED = Reference(uri="petici%C3%B3n.bin", digest=Digest.of(b"document"))
REFERENCES = {Packaging.ENVELOPED: ENVELOPED, Packaging.ENVELOPING: ENVELOPING, Packaging.DETACHED: DETACHED}

SIGNED_INFO = (
    '<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#">'
    '<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod>'
    '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"></ds:SignatureMethod>'
    '<ds:Reference Id="s-1-reference" URI=""><ds:Transforms>'
    '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform>'
    '<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>'
    '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod>'
    "<ds:DigestValue>Q8wj+lK4e0zB0CtbEUFUFR1q3dsXyf3cBrAn+pniQAg=</ds:DigestValue></ds:Reference>"
    '<ds:Reference Type="http://uri.etsi.org/01903#SignedProperties" URI="#s-1-properties"><ds:Transforms>'
    '<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms>'
    '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod>'
    "<ds:DigestValue>{properties}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
)
SIGNED_PROPERTIES = (
    '<xades:SignedProperties xmlns:xades="http://uri.etsi.org/01903/v1.3.2#" Id="s-1-properties">'
    "<xades:SignedSignatureProperties><xades:SigningTime>2026-11-22T18:05:09Z</xades:SigningTime>"
    "<xades:SigningCertificateV2><xades:Cert><xades:CertDigest>"
    '<ds:DigestMethod xmlns:ds="http://www.w3.org/2000/09/xmldsig#" '
    'Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod>'
    '<ds:DigestValue xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{certificate}</ds:DigestValue></xades:CertDigest>'
    "<xades:IssuerSerialV2>{serial}</xades:IssuerSerialV2></xades:Cert></xades:SigningCertificateV2>"
    "</xades:SignedSignatureProperties><xades:SignedDataObjectProperties>"
    '<xades:DataObjectFormat ObjectReference="#s-1-reference"><xades:MimeType>application/xml</xades:MimeType>'
    "</xades:DataObjectFormat>{commitment}</xades:SignedDataObjectProperties></xades:SignedProperties>"
)
COMMITMENT = (
    "<xades:CommitmentTypeIndication><xades:CommitmentTypeId>"
    "<xades:Identifier>http://uri.etsi.org/01903/v1.2.2#ProofOfApproval</xades:Identifier></xades:CommitmentTypeId>"
    "<xades:AllSignedDataObjects></xades:AllSignedDataObjects></xades:CommitmentTypeIndication>"
)


def an_item(packaging=Packaging.ENVELOPED, *, key_type=KeyType.P256, fields=None, **changes: object):
    values = {
        "purpose": Purpose.SIGN,
        "algorithm": {KeyType.P256: "ES256", KeyType.RSA3072: "RS256"}[key_type],
        "format": "xades",
        "packaging": packaging.value,
        "references": (REFERENCES[packaging],),
        "title": "Solicitud",
        "fields": {"mime_type": "application/xml", "signature_id": "s-1", **(fields or {})},
    }
    return Item(**{**values, **changes})


def test_the_octets_as_written_by_hand():
    certificate = InMemoryPKI().certify().chain[0]
    parsed = x509.load_der_x509_certificate(certificate)
    # RFC 5035 §4: SEQUENCE { GeneralNames { [4] Name }, serial }, put together by hand.
    name = parsed.issuer.public_bytes()
    number = parsed.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")
    directory = bytes([0xA4, len(name)]) + name
    body = bytes([0x30, len(directory)]) + directory + bytes([0x02, len(serial)]) + serial
    written = {
        "certificate": b64encode(hashlib.sha256(certificate).digest()).decode(),
        "serial": b64encode(bytes([0x30, len(body)]) + body).decode(),
    }
    for fields, commitment in (({}, ""), ({"commitment_type": "proof_of_approval"}, COMMITMENT)):
        built = xades.to_be_signed(an_item(fields=fields), certificate, MOMENT)
        properties = SIGNED_PROPERTIES.format(**written, commitment=commitment).encode()
        assert built.signed_properties == properties
        digest = b64encode(hashlib.sha256(properties).digest()).decode()
        assert built.signed_info == SIGNED_INFO.format(properties=digest).encode()


@pytest.mark.parametrize("packaging", Packaging)
def test_both_are_what_exclusive_canonicalisation_makes_of_them_anywhere(packaging):
    built = xades.to_be_signed(an_item(packaging), InMemoryPKI().certify().chain[0], MOMENT)
    for octets in (built.signed_info, built.signed_properties):
        around = (
            b'<x:a xmlns:x="urn:x" xmlns="urn:y" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">' + octets + b"</x:a>"
        )
        (inside,) = etree.fromstring(around)
        assert etree.tostring(inside, method="c14n", exclusive=True) == octets


def other(reference, **changes: object):
    return {"references": (replace(reference, **changes),)}


REFUSED = {
    "no reference": an_item(references=()),
    "two references": an_item(references=(ENVELOPED, DETACHED)),
    "a bare digest": an_item(references=(), digests=(Digest.of(b"x"),)),
    "weak digest's twin": an_item(**other(ENVELOPED, digest=Digest.of(b"x", DigestAlgorithm.SHA512))),
    "another URI": an_item(**other(ENVELOPED, uri="#s1")),
    "XPointer": an_item(**other(ENVELOPED, uri="#xpointer(/)")),
    "a type": an_item(**other(ENVELOPED, type="urn:x")),
    "the type of signed properties": an_item(**other(ENVELOPED, type=xmldsig.SIGNED_PROPERTIES_TYPE)),
    "no transform": an_item(**other(ENVELOPED, transforms=())),
    "transforms in another order": an_item(**other(ENVELOPED, transforms=ENVELOPED.transforms[::-1])),
    "XSLT": an_item(
        **other(ENVELOPED, transforms=(*ENVELOPED.transforms, "http://www.w3.org/TR/1999/REC-xslt-19991116"))
    ),
    "XPath": an_item(**other(ENVELOPED, transforms=("http://www.w3.org/TR/1999/REC-xpath-19991116",))),
    "inclusive": an_item(
        **other(
            ENVELOPED,
            transforms=(xmldsig.ENVELOPED_SIGNATURE, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
        )
    ),
    "another object": an_item(Packaging.ENVELOPING, **other(ENVELOPING, uri="#s-2-object")),
    "an object without type": an_item(Packaging.ENVELOPING, **other(ENVELOPING, type="")),
    "an object with both transforms": an_item(
        Packaging.ENVELOPING, **other(ENVELOPING, transforms=(xmldsig.BASE64, xmldsig.EXCLUSIVE_C14N))
    ),
    "an enveloped reference in an enveloping signature": an_item(Packaging.ENVELOPING, references=(ENVELOPED,)),
    "a file elsewhere": an_item(Packaging.DETACHED, **other(DETACHED, uri="http://example.org/a")),
    "a file above": an_item(Packaging.DETACHED, **other(DETACHED, uri="../a")),
    "a path": an_item(Packaging.DETACHED, **other(DETACHED, uri="a/b")),
    "a hidden file": an_item(Packaging.DETACHED, **other(DETACHED, uri=".a")),
    "markup in the name": an_item(Packaging.DETACHED, **other(DETACHED, uri='a"><x y="')),
    "a file with a transform": an_item(Packaging.DETACHED, **other(DETACHED, transforms=(xmldsig.BASE64,))),
    "no MIME type": an_item(fields={"mime_type": ""}),
    "markup in the MIME type": an_item(fields={"mime_type": "a/b</xades:MimeType>"}),
    "no id": an_item(fields={"signature_id": ""}),
    "markup in the id": an_item(fields={"signature_id": 's"/>'}),
    "an unknown field": an_item(fields={"signing_time": "2020-01-01T00:00:00Z"}),
    "an unknown commitment": an_item(fields={"commitment_type": "proof_of_nothing"}),
    "a PDF that is detached": a_document(packaging="detached"),
    "a PDF with a reference": an_item(format="pades"),
}


async def test_what_cannot_be_staged_and_what_can(tmp_path):
    async with playing(tmp_path) as played:
        for name, item in REFUSED.items():
            with pytest.raises((MalformedRequest, AlgorithmNotAllowed)):
                await played.stage(items=[certificate_item(KeyType.P256), item])
            assert await played.rows(tables.request) == [], name
        for packaging in Packaging:
            staged = await played.stage(items=[certificate_item(KeyType.P256), an_item(packaging)])
            assert (await played.core.requests.read(staged.id)).items == staged.items
            assert staged.items[1].references == (REFERENCES[packaging],)


def test_an_item_has_digests_or_references():
    with pytest.raises(MalformedRequest):
        an_item(digests=(Digest.of(b"x"),))


@pytest.mark.parametrize("key_type", KeyType)
async def test_a_citizen_signs_xml_in_every_packaging(tmp_path, key_type):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        documents = [an_item(packaging, key_type=key_type) for packaging in Packaging]
        _, sad = await played.approved(items=[certificate_item(key_type), *documents])
        signed = await played.sign(sad, (0, 1, 2, 3))
        for answer, item in zip(signed.items[1:], documents, strict=True):
            key = x509.load_der_x509_certificate(answer.chain[0]).public_key()
            if isinstance(key, ec.EllipticCurvePublicKey):
                assert len(answer.signature) == 64
                r, s = (int.from_bytes(half, "big") for half in (answer.signature[:32], answer.signature[32:]))
                key.verify(encode_dss_signature(r, s), answer.to_be_signed, ec.ECDSA(SHA256()))
            else:
                assert isinstance(key, rsa.RSAPublicKey)
                key.verify(answer.signature, answer.to_be_signed, PKCS1v15(), SHA256())
            (row,) = [row for row in await played.rows(tables.authorisation) if row["item"] == answer.item]
            again = xades.to_be_signed(item, answer.chain[0], row["signing_time"])
            assert (again.signed_info, again.signed_properties) == (answer.to_be_signed, answer.signed_properties)
        assert (await played.sign(sad, (1, 2, 3))).items == signed.items[1:]


async def test_a_second_attempt_signs_the_bytes_of_the_first(tmp_path):
    moments = iter(range(10_000))

    class Running:
        """A clock that moves on with every look."""

        def now(self):
            return MOMENT + timedelta(milliseconds=200 * next(moments))

    async with playing(tmp_path, clock=Running()) as played:
        await played.activate(await played.register())
        _, sad = await played.approved(items=[certificate_item(KeyType.P256), an_item()])
        await played.sign(sad, (0,))
        sign = played.vault.sign

        async def fail(*_arguments: object, **_named: object):
            raise HSMError("gone")

        played.vault.sign = fail
        with pytest.raises(DependencyUnavailable):
            await played.sign(sad, (1,))
        played.vault.sign = sign
        first, second = (
            [leaf["facts"]["tbs"] for leaf in await played.leaves("INTENT")][1:],
            await played.sign(sad, (1,)),
        )
        intents = [leaf["facts"]["tbs"] for leaf in await played.leaves("INTENT")][1:]
        assert first == [intents[0]]
        assert len(set(intents)) == 1
        assert len(intents) == 2
        assert hashlib.sha256(second.items[0].to_be_signed).digest() == intents[1]


async def test_a_reference_edited_after_approval_signs_nothing(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        _, sad = await played.approved(items=[certificate_item(KeyType.P256), an_item(Packaging.DETACHED)])
        (row,) = await played.rows(tables.request)
        for name, value in (("uri", "another.bin"), ("type", "urn:x"), ("transforms", [xmldsig.BASE64])):
            items = [dict(item) for item in row["items"]]
            items[1]["references"] = [{**items[1]["references"][0], name: value}]
            await played.execute(sa.update(tables.request).values(items=items))
            with pytest.raises(RubricaError):
                await played.sign(sad, (0, 1))
        await played.execute(sa.update(tables.request).values(items=row["items"]))
        assert [item.state for item in (await played.sign(sad, (0, 1))).items] == ["SIGNED", "SIGNED"]
