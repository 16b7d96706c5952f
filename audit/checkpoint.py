"""What the log says of itself: C2SP tlog-checkpoint in a signed note (ECDSA P-256, signature type 0x02)."""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from audit.merkle import HASH_SIZE_BYTES

NOTE_LIMIT_BYTES = 64 * 1024
KEY_ID_SIZE_BYTES = 4
_DASH = "\u2014 "


class CheckpointRefused(ValueError):
    """Not a checkpoint, or not signed by the key it is to be believed by."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree at one moment."""

    origin: str
    """Which log: a name without spaces or plus, as ``firma.example/log/2026h2``."""
    size: int
    """Leaves."""
    root: bytes
    """32 bytes."""

    def text(self) -> str:
        """What is signed: origin, size and root, a line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def digest(self) -> bytes:
        """SHA-256 of the text, for the HSM to sign."""
        return hashlib.sha256(self.text().encode()).digest()

    def note(self, spki: bytes, signature: bytes) -> bytes:
        """The signed note.

        Args:
            spki: SubjectPublicKeyInfo (DER) of the key that signed.
            signature: ECDSA (DER) of ``digest()``.
        """
        line = base64.b64encode(key_id(spki) + signature).decode()
        return f"{self.text()}\n{_DASH}{self.origin} {line}\n".encode()


def key_id(spki: bytes) -> bytes:
    """Four bytes by which a note names the key."""
    return hashlib.sha256(spki).digest()[:KEY_ID_SIZE_BYTES]


def read_checkpoint(note: bytes, origin: str, spki: bytes) -> Checkpoint:
    """The checkpoint in a note, if this key signed it as this log.

    Lines of other signers, such as witnesses, are passed over.

    Raises:
        CheckpointRefused: Malformed, of another log, not signed by ``spki``, or signed wrongly.
    """
    text, signatures = _parts(note)
    key = load_der_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CheckpointRefused("a log's key is an elliptic curve's")
    found = [
        signature[KEY_ID_SIZE_BYTES:]
        for name, signature in signatures
        if name == origin and signature[:KEY_ID_SIZE_BYTES] == key_id(spki)
    ]
    if not found:
        raise CheckpointRefused("the log's key did not sign this checkpoint")
    for signature in found:
        try:
            key.verify(signature, text.encode(), ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise CheckpointRefused("the signature of the checkpoint does not verify") from None
    named, *lines = text.removesuffix("\n").split("\n")
    if named != origin or len(lines) != 2:  # noqa: PLR2004 - size and root, and no extension
        raise CheckpointRefused("this is another log's checkpoint")
    size, root = lines[0], _base64(lines[1])
    if not (size.isascii() and size.isdecimal() and str(int(size)) == size) or len(root) != HASH_SIZE_BYTES:
        raise CheckpointRefused("size or root is malformed")
    return Checkpoint(origin, int(size), root)


def _parts(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and ``(key name, key id and signature)`` of each signature line."""
    try:
        said = note.decode()
    except UnicodeDecodeError:
        raise CheckpointRefused("a note is UTF-8") from None
    text, blank, rest = said.rpartition("\n\n")
    if not blank or len(note) > NOTE_LIMIT_BYTES or any(sign < " " and sign != "\n" for sign in said):
        raise CheckpointRefused("this is no signed note")
    signatures = []
    for line in rest.removesuffix("\n").split("\n"):
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space or not name or not rest.endswith("\n"):
            raise CheckpointRefused("a signature line is malformed")
        signatures.append((name, _base64(encoded)))
    return text + "\n", signatures


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointRefused("this is not base64") from None
