"""Core and client against vectors that neither of them made, and one that was worked out by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from authn import envelope as core_envelope
from authn.sealing import Label, SealBroken, kdf, unseal
from domain import canonical, items
from domain.digests import Digest, DigestAlgorithm
from domain.errors import MalformedRequest
from domain.items import Item, Purpose, Reference
from rubrica_client import sealing
from rubrica_client.jws import base64url
from rubrica_client.sealing import AnswerBroken, Challenge, Context

VECTORS = Path(__file__).parents[2] / "vectors"
HAND_MADE = bytes.fromhex("00000002c3b1000000080000000000000102ffffffff0000000200000001ab000000017a")


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


CANONICAL, KEYS, ENVELOPE = load("canonical"), load("kdf"), load("envelope")
ITEMS = load("items") + load("references")
SAP = ec.derive_private_key(int(ENVELOPE["sap_private_key"], 16), ec.SECP256R1())
MESSAGES = [*ENVELOPE["messages"], *load("envelope_pin")["messages"]]
POINT = bytes.fromhex(ENVELOPE["sap_public_key"])


def part(given: Any) -> Any:
    if given is None:
        return None
    ((kind, value),) = given.items()
    match kind:
        case "hex":
            return bytes.fromhex(value)
        case "list":
            return [part(inner) for inner in value]
        case _:
            return value


def optional(given: str | None) -> bytes | None:
    return None if given is None else bytes.fromhex(given)


@pytest.mark.parametrize("encode", [canonical.encode, sealing.encode])
def test_the_encoding_worked_out_by_hand(encode: Any) -> None:
    assert encode("n\u0303", 258, None, [b"\xab", "z"]) == HAND_MADE


@pytest.mark.parametrize("encode", [canonical.encode, sealing.encode])
@pytest.mark.parametrize("vector", CANONICAL, ids=lambda vector: vector["name"])
def test_canonical_encoding(vector: Any, encode: Any) -> None:
    assert encode(*(part(each) for each in vector["parts"])).hex() == vector["encoded"]


def test_parts_cut_elsewhere_are_another_encoding() -> None:
    assert len({vector["encoded"] for vector in CANONICAL}) == len(CANONICAL) - 1  # NFC makes exactly one pair alike


def as_digest(given: Any) -> Digest:
    return Digest(DigestAlgorithm(given["algorithm"]), bytes.fromhex(given["value"]))


def as_item(given: Any) -> Item:
    return Item(
        purpose=Purpose(given["purpose"]),
        algorithm=given["algorithm"],
        format=given["format"],
        packaging=given["packaging"],
        digests=tuple(as_digest(digest) for digest in given["digests"]),
        references=tuple(
            Reference(
                uri=reference["uri"],
                type=reference["type"],
                transforms=tuple(reference["transforms"]),
                digest=as_digest(reference["digest"]),
            )
            for reference in given.get("references", ())
        ),
        title=given["title"],
        fields=given["fields"],
    )


def as_described(given: Any) -> Any:
    """As the gate's JSON has it: bytes in base64url."""

    def described(digest: Any) -> Any:
        return {**digest, "value": base64url(bytes.fromhex(digest["value"]))}

    references = [{**each, "digest": described(each["digest"])} for each in given.get("references", ())]
    return {**given, "digests": [described(digest) for digest in given["digests"]], "references": references}


@pytest.mark.parametrize("vector", ITEMS, ids=lambda vector: vector["name"])
def test_approved_list(vector: Any) -> None:
    listed = [as_item(each) for each in vector["items"]]
    assert items.encode_list(listed).hex() == vector["list"]
    assert items.list_sha256(listed).hex() == vector["sha256"]
    assert sealing.list_sha256([as_described(each) for each in vector["items"]]).hex() == vector["sha256"]


def test_no_two_lists_have_one_name() -> None:
    assert len({vector["sha256"] for vector in ITEMS}) == len(ITEMS)


@pytest.mark.parametrize("vector", KEYS, ids=lambda vector: vector["label"])
def test_derived_keys(vector: Any) -> None:
    parts = [part(each) for each in vector["parts"]]
    assert kdf(Label(vector["label"]), *parts).hex() == vector["key"]
    assert sealing.derive(vector["label"], *parts).hex() == vector["key"]


def context_of(message: Any) -> Context:
    return Context(
        purpose=message["purpose"],
        subject=message["subject"],
        list_sha256=optional(message["list_sha256"]),
        client_id=message["client_id"],
        challenge_id=message["challenge_id"],
    )


def core_context(message: Any) -> core_envelope.EnvelopeContext:
    return core_envelope.EnvelopeContext(
        purpose=core_envelope.EnvelopePurpose(message["purpose"]),
        subject=message["subject"],
        list_sha256=optional(message["list_sha256"]),
        client_id=message["client_id"],
        challenge_id=message["challenge_id"],
    )


def opened_by_core(sap_id: str, nonce: bytes, enc: bytes, ciphertext: bytes, message: Any) -> list[bytes]:
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
    sealed = core_envelope.Envelope(sap_id, nonce, enc, ciphertext)
    opened = core_envelope.open_message(SAP.exchange(ec.ECDH(), peer), sealed, POINT, core_context(message))
    return [opened.secret, opened.companion]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["purpose"])
def test_info_and_recorded_message(message: Any) -> None:
    nonce = bytes.fromhex(message["nonce"])
    assert context_of(message).info(message["sap_id"], nonce).hex() == message["info"]
    assert core_context(message).info(message["sap_id"], nonce).hex() == message["info"]
    secrets = [bytes.fromhex(secret) for secret in message["secrets"]]
    assert sealing.encode(*secrets).hex() == message["plaintext"]
    enc, ciphertext = bytes.fromhex(message["enc"]), bytes.fromhex(message["ciphertext"])
    assert opened_by_core(message["sap_id"], nonce, enc, ciphertext, message) == secrets


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["purpose"])
def test_what_the_client_seals_the_core_opens(message: Any) -> None:
    challenge = Challenge(nonce=bytes.fromhex(message["nonce"]), sap_id=message["sap_id"], sap_public_key=POINT)
    secrets = [bytes.fromhex(secret) for secret in message["secrets"]]
    sealed = sealing.seal(challenge, context_of(message), *secrets)
    enc, ciphertext = sealing.unbase64url(sealed["enc"]), sealing.unbase64url(sealed["ciphertext"])
    assert opened_by_core(message["sap_id"], challenge.nonce, enc, ciphertext, message) == secrets
    # By another implementation of HPKE, too.
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(enc + ciphertext, SAP, bytes.fromhex(message["info"])).hex() == message["plaintext"]


def test_every_purpose_has_a_vector() -> None:
    assert {message["purpose"] for message in MESSAGES} == set(core_envelope.EnvelopePurpose)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "activation-begin"},
        {"subject": "87654321X"},
        {"list_sha256": hashlib.sha256(b"another list").hexdigest()},
        {"list_sha256": None},
        {"client_id": "other"},
        {"challenge_id": "ZYXWVTSRQPNMKJHGFEDCBA9876"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_message_for_something_else_does_not_open(change: Any) -> None:
    message = ENVELOPE["messages"][0]
    enc, ciphertext = bytes.fromhex(message["enc"]), bytes.fromhex(message["ciphertext"])
    nonce = bytes.fromhex(message["nonce"])
    with pytest.raises(MalformedRequest):
        opened_by_core(message["sap_id"], nonce, enc, ciphertext, {**message, **change})
    with pytest.raises(MalformedRequest):
        opened_by_core("another SAP key", nonce, enc, ciphertext, message)
    with pytest.raises(MalformedRequest):
        opened_by_core(message["sap_id"], bytes(16), enc, ciphertext, message)


def test_the_sealed_answer_opens_for_its_browser_only() -> None:
    answer = ENVELOPE["answer"]
    cs, sealed = bytes.fromhex(answer["cs"]), bytes.fromhex(answer["sealed"])
    challenge_id = answer["challenge_id"]
    assert sealing.open_answer(sealed, cs, challenge_id).hex() == answer["token"]
    assert unseal(Label.ANSWER, kdf(Label.ANSWER, cs, challenge_id), sealed, challenge_id).hex() == answer["token"]
    for wrong in ((sealed, bytes(32), challenge_id), (sealed, cs, "other"), (sealed[:-1] + b"\0", cs, challenge_id)):
        with pytest.raises(AnswerBroken):
            sealing.open_answer(*wrong)
    with pytest.raises(SealBroken):
        unseal(Label.ANSWER, kdf(Label.ANSWER, bytes(32), challenge_id), sealed, challenge_id)


def test_normal_forms() -> None:
    assert sealing.normalized_nif(" 12.345.678-z") == "12345678Z"
    assert sealing.normalized_password("n\u0303\uff11") == "ñ1".encode()
    assert sealing.normalized_code("abcd-2345 efgh-6789") == b"ABCD2345EFGH6789"
