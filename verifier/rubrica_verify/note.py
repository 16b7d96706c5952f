"""Signed notes that hold checkpoints (C2SP signed-note, tlog-checkpoint), and proofs in text (C2SP tlog-proof)."""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from rubrica_verify.files import LIMIT_BYTES, read_regular
from rubrica_verify.merkle import HASH_SIZE_BYTES, tree_hash
from rubrica_verify.report import Unusable

PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_SIGNATURE_LINE = re.compile("\u2014 ([^\\s+]+) ([A-Za-z0-9+/]+={0,2})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_MOST_SIGNATURES = 100


class NoteRefused(Exception):
    """Not a checkpoint that the log's key signed."""


@dataclass(frozen=True, slots=True)
class LogKey:
    """The log's public key."""

    public: ec.EllipticCurvePublicKey

    @classmethod
    def load(cls, path: Path) -> "LogKey":
        """Read a PEM file.

        Raises:
            Unusable: There is no P-256 public key in it.
        """
        try:
            key = load_pem_public_key(read_regular(path, LIMIT_BYTES))
        except (OSError, ValueError) as error:
            raise Unusable(f"{path}: no public key in PEM can be read ({type(error).__name__})") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Unusable(f"{path}: the log's key is one of the curve P-256")
        return cls(key)

    @property
    def id(self) -> bytes:
        """Four bytes that name the key in a note: of the SHA-256 of its SubjectPublicKeyInfo."""
        spki = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).digest()[:4]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log's key signed."""

    origin: str
    size: int
    """Leaves."""
    root: bytes


def read_note(note: bytes, key: LogKey) -> Checkpoint:
    """The checkpoint in a note. Signatures by other keys, such as witnesses', are passed over.

    Raises:
        NoteRefused: Malformed, or the key did not sign it.
    """
    try:
        said = note.decode()
    except UnicodeDecodeError:
        raise NoteRefused("a note is UTF-8") from None
    text, blank, signatures = said.rpartition("\n\n")
    lines = text.split("\n")
    if not blank or not signatures.endswith("\n") or len(lines) != 3:  # noqa: PLR2004 - origin, size, root
        raise NoteRefused("this is no note with origin, size and root")
    origin, size, root = lines
    given = signatures[:-1].split("\n")
    if len(given) > _MOST_SIGNATURES:
        raise NoteRefused("the note has too many signatures")
    ours = 0
    for line in given:
        found = _SIGNATURE_LINE.fullmatch(line)
        if found is None:
            raise NoteRefused("a signature line is malformed")
        signature = _base64(found[2])
        if found[1] == origin and signature[:4] == key.id:
            _check(key, signature[4:], text + "\n")
            ours += 1
    if not ours:
        raise NoteRefused("the key did not sign this note")
    hashed = _base64(root)
    if not origin or not _NUMBER.fullmatch(size) or len(hashed) != HASH_SIZE_BYTES:
        raise NoteRefused("origin, size or root is malformed")
    if size == "0" and hashed != tree_hash([]):
        raise NoteRefused("the empty tree has another root")
    return Checkpoint(origin, int(size), hashed)


@dataclass(frozen=True, slots=True)
class Proof:
    """That a leaf is in the log, for whoever has no log."""

    index: int
    path: tuple[bytes, ...]
    note: bytes

    def text(self) -> bytes:
        """As a file holds it."""
        hashes = "".join(f"{base64.b64encode(step).decode()}\n" for step in self.path)
        return f"{PROOF_HEADER}\nindex {self.index}\n{hashes}\n".encode() + self.note

    @classmethod
    def parse(cls, text: bytes) -> "Proof":
        """Read a proof; a line of extra data is passed over, for nothing vouches for it.

        Raises:
            NoteRefused: Malformed.
        """
        head, blank, note = text.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise NoteRefused("this is no proof") from None
        if lines and lines[0].startswith("extra "):
            _base64(lines.pop(0).removeprefix("extra "))
        if first != PROOF_HEADER or not blank or not lines:
            raise NoteRefused("this is no proof")
        word, _, number = lines[0].partition(" ")
        path = tuple(_base64(line) for line in lines[1:])
        if word != "index" or not _NUMBER.fullmatch(number) or any(len(step) != HASH_SIZE_BYTES for step in path):
            raise NoteRefused("the proof's index or a hash is malformed")
        return cls(int(number), path, note)


def _check(key: LogKey, signature: bytes, text: str) -> None:
    try:
        key.public.verify(signature, text.encode(), ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise NoteRefused("the key's signature does not verify") from None


def _base64(text: str) -> bytes:
    """Decode, and take one spelling only."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        raise NoteRefused("this is not base64") from None
    if base64.b64encode(decoded).decode() != text:
        raise NoteRefused("this is not base64 as it is written")
    return decoded
