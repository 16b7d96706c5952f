"""HPKE of the core against the vectors of RFC 9180 and against the cryptography library as the peer."""

import json
from dataclasses import replace

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authn.envelope import (
    Envelope,
    EnvelopeContext,
    EnvelopePurpose,
    decapsulate,
    key_schedule,
    open_message,
)
from domain import canonical
from domain.errors import MalformedRequest

SUITE = hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
CONTEXT = EnvelopeContext(
    purpose=EnvelopePurpose.SIGN_BEGIN, subject="12345678Z", list_sha256=bytes(32), client_id="web"
)


def vectors():
    with cryptography_vectors.open_vector_file("HPKE/test-vectors.json", "r") as file:
        found = json.load(file)
    # KEM P-256, KDF HKDF-SHA256, mode base; the key schedule of AES-256-GCM is what the core does.
    return [v for v in found if (v["mode"], v["kem_id"], v["kdf_id"], v["aead_id"]) == (0, 16, 1, 2)]


def test_the_rfc_vectors_of_our_suite():
    found = vectors()
    assert found
    for vector in found:
        private = ec.derive_private_key(int(vector["skRm"], 16), ec.SECP256R1())
        enc = bytes.fromhex(vector["enc"])
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
        dh = private.exchange(ec.ECDH(), peer)
        shared = decapsulate(dh, enc, bytes.fromhex(vector["pkRm"]))
        assert vector["shared_secret"] == shared.hex()
        key, nonce = key_schedule(shared, bytes.fromhex(vector["info"]))
        assert (vector["key"], vector["base_nonce"]) == (key.hex(), nonce.hex())


@pytest.fixture
def recipient():
    return ec.generate_private_key(ec.SECP256R1())


def point(private):
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def sealed(private, context=CONTEXT, parts=(b"secret", b"companion"), nonce=b"n" * 40):
    message = SUITE.encrypt(canonical.encode(*parts), private.public_key(), context.info("sap", nonce))
    return Envelope("sap", nonce, message[:65], message[65:])


def dh_of(private, envelope):
    return private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), envelope.enc))


def test_what_the_library_seals_the_core_opens(recipient):
    envelope = sealed(recipient)
    opened = open_message(dh_of(recipient, envelope), envelope, point(recipient), CONTEXT)
    assert (opened.secret, opened.companion) == (b"secret", b"companion")
    assert "secret" not in repr(opened)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": EnvelopePurpose.SIGN_COMPLETE},
        {"subject": "00000001R"},
        {"list_sha256": b"x" * 32},
        {"client_id": "agency"},
        {"client_id": None},
        {"challenge_id": "C"},
        {"channel": "app"},
    ],
)
def test_a_message_for_another_step_does_not_open(recipient, change):
    envelope = sealed(recipient)
    with pytest.raises(MalformedRequest):
        open_message(dh_of(recipient, envelope), envelope, point(recipient), replace(CONTEXT, **change))


@pytest.mark.parametrize("parts", [(b"one",), (b"", b"companion"), (b"secret", b""), (None, b"x"), (b"a", b"b", b"c")])
def test_a_plaintext_of_another_shape_is_refused(recipient, parts):
    envelope = sealed(recipient, parts=parts)
    with pytest.raises(MalformedRequest):
        open_message(dh_of(recipient, envelope), envelope, point(recipient), CONTEXT)
