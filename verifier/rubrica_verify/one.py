"""One leaf or two checkpoints against the hash tiles of a folder, or one leaf against a proof without a folder."""

from collections.abc import Sequence
from pathlib import Path

from rubrica_verify.files import LIMIT_BYTES, LogFolder, Malformed, Missing, parse_bundle, read_regular, split
from rubrica_verify.full import find_checkpoint, tell
from rubrica_verify.leaves import LeafRefused, UnknownVersion, is_id, read_leaf
from rubrica_verify.merkle import (
    BLOCK,
    ProofRefused,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
)
from rubrica_verify.note import Checkpoint, LogKey, NoteRefused, Proof, read_note
from rubrica_verify.report import Fault, Report, Unusable


def read_input(path: Path) -> bytes:
    """A small file that the auditor gives.

    Raises:
        Unusable: It cannot be read.
    """
    try:
        return read_regular(path, LIMIT_BYTES)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: it cannot be read ({error})") from error


def read_kept(path: Path, key: LogKey) -> Checkpoint:
    """A checkpoint that the auditor kept.

    Raises:
        Unusable: It is none of this key's.
    """
    try:
        return read_note(read_input(path), key)
    except NoteRefused as error:
        raise Unusable(f"{path}: {error}") from error


def checkpoint(note: Path, key: LogKey, origin: str, report: Report) -> None:
    """Whether the key signed a note as this log.

    Raises:
        Unusable: The file cannot be read.
    """
    try:
        read = read_note(read_input(note), key)
    except NoteRefused as error:
        report.add(Fault.CHECKPOINT, str(note), str(error))
        return
    report.facts.update(tell(read))
    if origin and read.origin != origin:
        report.add(Fault.CHECKPOINT, str(note), f"it is of another log, {read.origin}")


def inclusion(folder: LogFolder, key: LogKey, wanted: str, origin: str, report: Report) -> Proof | None:
    """Whether a leaf is in the log.

    Args:
        folder: The log.
        key: Of the log.
        wanted: A file that holds the leaf's octets, or the leaf's id.
        origin: What the log must call itself; empty takes any.
        report: Filled.

    Returns:
        The proof, if it is.

    Raises:
        Unusable: The folder is no log, or ``wanted`` is neither file nor id.
        OSError: Files cannot be read.
    """
    leaf = read_input(Path(wanted)) if Path(wanted).exists() else None
    if leaf is None and not is_id(wanted):
        raise Unusable(f"{wanted}: this is neither a file nor the id of a leaf")
    signed = find_checkpoint(folder, key, (), origin, report)
    if signed is None:
        return None
    try:
        if leaf is None:
            index, hashed = _find_id(folder, wanted, signed.size)
        else:
            index, hashed = _find_hash(folder, leaf_hash(leaf), signed.size), leaf_hash(leaf)
        path = inclusion_path(folder.node(signed.size), index, signed.size)
        check_inclusion(hashed, index, signed.size, path, signed.root)
    except (Missing, Malformed, ProofRefused) as error:
        report.add(Fault.PROOF, wanted, _why(error))
        return None
    report.facts["index"] = index
    return Proof(index, tuple(path), folder.note())


def proof(file: Path, key: LogKey, leaf: Path, origin: str, report: Report) -> None:
    """Whether a proof in a file shows that a leaf is in the log, without the log.

    Raises:
        Unusable: A file cannot be read.
    """
    hashed = leaf_hash(read_input(leaf))
    try:
        given = Proof.parse(read_input(file))
        signed = read_note(given.note, key)
        check_inclusion(hashed, given.index, signed.size, given.path, signed.root)
    except (NoteRefused, ProofRefused) as error:
        report.add(Fault.PROOF, str(file), str(error))
        return
    report.facts.update(tell(signed), index=given.index)
    if origin and signed.origin != origin:
        report.add(Fault.PROOF, str(file), f"it is of another log, {signed.origin}")


def consistency(folder: LogFolder, notes: Sequence[tuple[Path, Checkpoint]], origin: str, report: Report) -> None:
    """Whether the tree of the second checkpoint begins with that of the first, by the folder's hash tiles.

    Raises:
        Unusable: They are not two of one log in order.
        OSError: Files cannot be read.
    """
    (old_file, old), (new_file, new) = notes
    if old.origin != new.origin or old.size > new.size or origin not in ("", new.origin):
        raise Unusable(f"{old_file} and {new_file} are not an older and a newer checkpoint of one log")
    report.facts.update(tell(new), from_size=old.size)
    try:
        path = consistency_path(folder.node(new.size), old.size, new.size) if 0 < old.size < new.size else []
        if old.size:
            check_consistency(old.size, old.root, new.size, new.root, path)
    except Missing as error:
        report.add(Fault.TILE, str(error), "it is missing")
    except Malformed as error:
        report.add(Fault.TILE, str(folder.folder), str(error))
    except ProofRefused as error:
        words = f"the tree of {new_file} does not begin with that of {old_file}, by these tiles: {error}"
        report.add(Fault.FORK, str(folder.folder), words)


def _find_id(folder: LogFolder, wanted: str, size: int) -> tuple[int, bytes]:
    """Index and hash of the leaf with this id."""
    name = wanted.encode()
    for index, start in enumerate(range(0, size, BLOCK)):
        width = min(BLOCK, size - start)
        data = folder.bundle(index, width)
        if name not in data:
            continue
        for at, leaf in enumerate(parse_bundle(data, width), start):
            if name in leaf and _id(leaf) == wanted:
                return at, leaf_hash(leaf)
    raise ProofRefused("no leaf of the log has this id")


def _find_hash(folder: LogFolder, hashed: bytes, size: int) -> int:
    for index, start in enumerate(range(0, size, BLOCK)):
        data = folder.hashes(0, index, min(BLOCK, size - start))
        if hashed in data:
            row = split(data)
            if hashed in row:
                return start + row.index(hashed)
    raise ProofRefused("the log has no such leaf")


def _id(leaf: bytes) -> str:
    try:
        return read_leaf(leaf).id
    except (LeafRefused, UnknownVersion):
        return ""


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, Missing) else str(error)
