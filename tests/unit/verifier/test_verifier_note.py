"""A checkpoint is believed if the log's key signed it, in one spelling; so is a proof."""

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit.checkpoint import Checkpoint as ServicesCheckpoint
from rubrica_verify.note import LogKey, NoteRefused, Proof, read_note
from rubrica_verify.report import Unusable

ORIGIN = "firma.example/log/2026h2"
ROOT = hashlib.sha256(b"root").digest()
ROOT_TEXT = base64.b64encode(ROOT).decode()
PRIVATE, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
KEY = LogKey(PRIVATE.public_key())
DASH = "\u2014"


def signature_line(text, private=PRIVATE, name=ORIGIN, key=PRIVATE):
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = hashlib.sha256(spki).digest()[:4] + private.sign(text.encode(), ec.ECDSA(SHA256()))
    return f"{DASH} {name} {base64.b64encode(signed).decode()}\n"


def a_note(origin=ORIGIN, size="5", root=ROOT_TEXT, more="", **signing: Any):
    text = f"{origin}\n{size}\n{root}\n{more}"
    return f"{text}\n{signature_line(text, **signing)}".encode()


def test_what_the_key_signed_is_read():
    read = read_note(a_note(), KEY)
    assert (read.origin, read.size, read.root) == (ORIGIN, 5, ROOT)


def test_the_services_own_note_is_one():
    spki = PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    checkpoint = ServicesCheckpoint(ORIGIN, 7, ROOT)
    note = checkpoint.note(spki, PRIVATE.sign(checkpoint.text().encode(), ec.ECDSA(SHA256())))
    assert read_note(note, KEY).size == 7


def test_witnesses_may_sign_too():
    other = signature_line("whatever", private=OTHER, name="witness.example", key=OTHER)
    assert read_note(a_note() + other.encode(), KEY).size == 5
    assert read_note(a_note().replace(b"\n\n", f"\n\n{other}".encode()), KEY).size == 5


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\n\n",
        a_note()[:-1],
        a_note().replace(b"\n\n", b"\n"),
        a_note(private=OTHER),
        a_note(private=OTHER, key=OTHER),
        a_note(name="firma.example/log/2026h1"),
        a_note(origin="firma.example/log/2026h1"),
        a_note(origin=""),
        a_note(size="05"),
        a_note(size="-5"),
        a_note(size="５"),
        a_note(size="1" + "0" * 18),
        a_note(size="0"),
        a_note(root=base64.b64encode(ROOT[:31]).decode()),
        a_note(root=base64.b64encode(ROOT).decode().rstrip("=")),
        a_note(more="extension\n"),
        a_note().replace(DASH.encode(), b"-"),
        a_note() + b"\n",
        a_note() + signature_line("another").encode(),
        a_note() + signature_line("w", private=OTHER, name="w", key=OTHER).encode() * 100,
    ],
)
def test_nothing_else_is(note):
    with pytest.raises(NoteRefused):
        read_note(note, KEY)


def test_base64_has_one_spelling():
    root = base64.b64encode(ROOT).decode()
    assert base64.b64decode(root[:-2] + _next(root[-2]) + "=") == ROOT
    with pytest.raises(NoteRefused, match="as it is written"):
        read_note(a_note(root=root[:-2] + _next(root[-2]) + "="), KEY)


def _next(sign):
    """The sign with the same upper four bits: what it differs in is thrown away."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return alphabet[alphabet.index(sign) + 1]


def test_an_empty_log_has_the_empty_root():
    empty = base64.b64encode(hashlib.sha256().digest()).decode()
    assert read_note(a_note(size="0", root=empty), KEY).size == 0


def test_a_proof_is_what_was_written():
    proof = Proof(3, (ROOT, ROOT[::-1]), a_note())
    assert Proof.parse(proof.text()) == proof
    lines = proof.text().split(b"\n")
    assert lines[:2] == [b"c2sp.org/tlog-proof@v1", b"index 3"]
    with_extra = b"\n".join([lines[0], b"extra AAAA", *lines[1:]])
    assert Proof.parse(with_extra) == proof
    assert Proof.parse(Proof(0, (), a_note()).text()).path == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"proof@v1", b"proof@v2"),
        (b"index 3", b"index 03"),
        (b"index 3", b"index"),
        (b"index 3\n", b""),
        (b"index", b"extra !!\nindex"),
        (b"\n\n", b"\n"),
        (base64.b64encode(ROOT), base64.b64encode(ROOT[:31])),
        (base64.b64encode(ROOT), b"*"),
        (b"index 3", "índex 3".encode()),
    ],
)
def test_no_other_proof_is_one(old, new):
    text = Proof(3, (ROOT,), a_note()).text()
    assert text.replace(old, new) != text
    with pytest.raises(NoteRefused):
        read_note(Proof.parse(text.replace(old, new)).note, KEY)


@pytest.mark.parametrize("content", ["missing", b"", b"no PEM", "ed25519", "p384"])
def test_a_key_is_one_of_the_curve_p256(tmp_path, content):
    path = tmp_path / "log.pem"
    keys = {
        "ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
        "p384": ec.generate_private_key(ec.SECP384R1()).public_key(),
    }
    if content in keys:
        content = keys[content].public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if content != "missing":
        path.write_bytes(content)
    with pytest.raises(Unusable):
        LogKey.load(path)
