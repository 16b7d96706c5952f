"""The Merkle tree of RFC 9162 §2.1, written down as the RFC defines it: by splitting, not by edges or loops."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

HASH_SIZE_BYTES = 32
BLOCK = 256
"""Hashes in a tile, leaves in a bundle (C2SP tlog-tiles)."""

Node = Callable[[int, int], bytes]
"""Gives MTH of the leaves ``index << level`` to ``(index + 1) << level``."""


class ProofRefused(Exception):
    """A proof does not prove what it should."""


def leaf_hash(leaf: bytes) -> bytes:
    """``SHA-256(0x00 || leaf)``."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 || left || right)``."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """MTH over the roots of complete subtrees of one size, the last of which may be a smaller tree's.

    Pairing neighbours and passing on an odd last one, until one is left, gives the tree of the RFC.
    """
    if not hashes:
        return hashlib.sha256().digest()
    row = list(hashes)
    while len(row) > 1:
        odd = row[len(row) & ~1 :]
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)] + odd
    return row[0]


class Blocks:
    """A tree that is fed in blocks of 256 leaf hashes, and keeps only what a row of tiles has not taken yet."""

    def __init__(self) -> None:
        self._rows: list[list[bytes]] = []
        self._full: list[int] = []

    def add(self, block: Sequence[bytes]) -> Iterator[tuple[int, int, list[bytes]]]:
        """Take 256 more leaf hashes.

        Yields:
            ``(level, index, hashes)`` of every tile above the leaves' that is full now.
        """
        level, hashed = 1, tree_hash(block)
        while True:
            if len(self._rows) < level:
                self._rows.append([])
                self._full.append(0)
            row = self._rows[level - 1]
            row.append(hashed)
            if len(row) < BLOCK:
                return
            yield level, self._full[level - 1], row
            hashed = tree_hash(row)
            self._rows[level - 1] = []
            self._full[level - 1] += 1
            level += 1

    def unfinished(self) -> Iterator[tuple[int, int, list[bytes]]]:
        """``(level, index, hashes)`` of every tile above the leaves' that is begun and not full."""
        for level, (row, index) in enumerate(zip(self._rows, self._full, strict=True), 1):
            if row:
                yield level, index, row

    def root(self, tail: Sequence[bytes]) -> bytes:
        """Root of the tree of all blocks and, behind them, up to 256 leaf hashes."""
        last = [tree_hash(tail)] if tail else []
        for row in self._rows:
            if row or last:
                last = [tree_hash([*row, *last])]
        return last[0] if last else tree_hash([])


def range_root(node: Node, low: int, high: int) -> bytes:
    """MTH of the leaves ``low`` to ``high``, where ``low`` begins a subtree at least as large."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, low >> level)
    middle = low + _k(size)
    return node_hash(range_root(node, low, middle), range_root(node, middle, high))


def inclusion_path(node: Node, index: int, size: int) -> list[bytes]:
    """``PATH(index, D_size)`` of RFC 9162 §2.1.3.1."""

    def path(low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        middle = low + _k(high - low)
        if index < middle:
            return [*path(low, middle), range_root(node, middle, high)]
        return [*path(middle, high), range_root(node, low, middle)]

    return path(0, size)


def consistency_path(node: Node, old: int, new: int) -> list[bytes]:
    """``PROOF(old, D_new)`` of RFC 9162 §2.1.4.1, with ``0 < old <= new``."""

    def path(low: int, high: int, *, whole: bool) -> list[bytes]:
        if old == high:
            return [] if whole else [range_root(node, low, high)]
        middle = low + _k(high - low)
        if old <= middle:
            return [*path(low, middle, whole=whole), range_root(node, middle, high)]
        return [*path(middle, high, whole=False), range_root(node, low, middle)]

    return path(0, new, whole=True)


def check_inclusion(hashed: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Nothing, if the leaf hash stands at ``index`` under ``root``.

    Raises:
        ProofRefused: It does not, by this path.
    """

    def rebuild(index: int, size: int, path: Sequence[bytes]) -> bytes:
        if size == 1:
            if path:
                raise ProofRefused("the proof is too long")
            return hashed
        if not path:
            raise ProofRefused("the proof is too short")
        k = _k(size)
        if index < k:
            return node_hash(rebuild(index, k, path[:-1]), path[-1])
        return node_hash(path[-1], rebuild(index - k, size - k, path[:-1]))

    if not 0 <= index < size:
        raise ProofRefused("the tree has no such leaf")
    if rebuild(index, size, path) != root:
        raise ProofRefused("the proof leads to another root")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Nothing, if the tree of ``new`` leaves begins with that of ``old``.

    Raises:
        ProofRefused: It does not, by this path.
    """

    def rebuild(old: int, new: int, path: Sequence[bytes], *, whole: bool) -> tuple[bytes, bytes]:
        """The root that the old tree has in this part, and that of the new one."""
        if old == new:
            given = [old_root, *path] if whole else list(path)
            if len(given) != 1:
                raise ProofRefused("the proof has not the right length")
            return given[0], given[0]
        if not path:
            raise ProofRefused("the proof is too short")
        k = _k(new)
        if old <= k:
            before, after = rebuild(old, k, path[:-1], whole=whole)
            return before, node_hash(after, path[-1])
        before, after = rebuild(old - k, new - k, path[:-1], whole=False)
        return node_hash(path[-1], before), node_hash(path[-1], after)

    if not 0 < old <= new:
        raise ProofRefused("the old tree has at least one leaf and no more than the new one")
    if rebuild(old, new, path, whole=True) != (old_root, new_root):
        raise ProofRefused("the proof leads to other roots")


def _k(size: int) -> int:
    """The largest power of two smaller than ``size``, as the RFC splits."""
    k = 1
    while 2 * k < size:
        k *= 2
    return k
