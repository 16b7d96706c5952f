"""Checkpoints hold what was signed, and every forged one is refused."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit.checkpoint import Checkpoint, CheckpointRefused, key_id, read_checkpoint

ORIGIN = "firma.example/log/2026h2"
CHECKPOINT = Checkpoint(ORIGIN, 20852163, bytes(range(32)))


class Signer:
    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def note(self, checkpoint: Checkpoint) -> bytes:
        signature = self.key.sign(checkpoint.digest(), ec.ECDSA(utils.Prehashed(SHA256())))
        return checkpoint.note(self.spki, signature)

    def signed(self, text: str, name: str = ORIGIN) -> bytes:
        line = base64.b64encode(key_id(self.spki) + self.key.sign(text.encode(), ec.ECDSA(SHA256()))).decode()
        return f"{text}\n\u2014 {name} {line}\n".encode()


@pytest.fixture(scope="module")
def signer():
    return Signer()


def test_what_was_signed_is_read(signer):
    assert read_checkpoint(signer.note(CHECKPOINT), ORIGIN, signer.spki) == CHECKPOINT


def test_lines_of_witnesses_are_passed_over(signer):
    witnessed = signer.note(CHECKPOINT) + "— testigo.example dGVzdA==\n".encode()
    assert read_checkpoint(witnessed, ORIGIN, signer.spki) == CHECKPOINT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"20852163", b"20852164"),
        (b"20852163", b"020852163"),
        (b"AAEC", b"AAED"),
        (b"/2026h2\n2", b"/2026h1\n2"),
        (b"\n\n", b"\n"),
        (b"=\n\n", b"=\nmore\n\n"),
        ("\u2014 ".encode(), b"- "),
        (b"/2026h2 ", b"/2026h1 "),
    ],
)
def test_any_change_is_refused(signer, old, new):
    note = signer.note(CHECKPOINT)
    assert note.count(old) >= 1
    with pytest.raises(CheckpointRefused):
        read_checkpoint(note.replace(old, new, 1), ORIGIN, signer.spki)


def test_another_key_is_refused_even_under_our_key_id(signer):
    stranger = Signer()
    with pytest.raises(CheckpointRefused, match="did not sign"):
        read_checkpoint(stranger.note(CHECKPOINT), ORIGIN, signer.spki)
    stolen = CHECKPOINT.note(signer.spki, stranger.key.sign(CHECKPOINT.text().encode(), ec.ECDSA(SHA256())))
    with pytest.raises(CheckpointRefused, match="does not verify"):
        read_checkpoint(stolen, ORIGIN, signer.spki)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n",
        f"{ORIGIN}\n-1\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n01\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n١\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n1\n not base64 \n",
        f"{ORIGIN}\n1\n{base64.b64encode(bytes(32)).decode()}\nmore\n",
    ],
)
def test_well_signed_nonsense_is_refused(signer, text):
    with pytest.raises(CheckpointRefused):
        read_checkpoint(signer.signed(text), ORIGIN, signer.spki)


@pytest.mark.parametrize("note", [b"", b"\n\n", b"\xff\n\n", b"a\x00\n\n\xe2\x80\x94 a b\n", b"a" * 70000])
def test_rubbish_is_refused(signer, note):
    with pytest.raises(CheckpointRefused):
        read_checkpoint(note, ORIGIN, signer.spki)
