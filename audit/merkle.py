"""The Merkle tree of RFC 9162 §2.1 (the same as RFC 6962's): hashes, proofs, and how they are checked.

Nodes are addressed as tlog-tiles does: the node ``(level, index)`` is the root of the complete subtree over the leaves
``index << level`` to ``(index + 1) << level``. Every proof is made of such nodes, so whatever can read them is a tree.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import reduce

HASH_SIZE_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""Root of the tree without leaves."""

ReadNode = Callable[[int, int], bytes]
"""Gives the hash of the complete subtree ``(level, index)``."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of a leaf; 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node above two others; 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its complete subtrees, largest first; at most one per level."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    @classmethod
    def of(cls, read: ReadNode, size: int) -> "Frontier":
        """The edge of a tree of ``size`` leaves whose nodes ``read`` gives."""
        return cls(size, [read(level, index) for level, index in _complete(0, size)])

    def copy(self) -> "Frontier":
        """The same edge, to grow on its own."""
        return Frontier(self.size, self._peaks)

    def append(self, hashed: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf by its hash.

        Returns:
            ``(level, index, hash)`` of every node that this leaf completes, from the leaf up.
        """
        level, index, completed = 0, self.size, [(0, self.size, hashed)]
        while index & 1:
            hashed = node_hash(self._peaks.pop(), hashed)
            level, index = level + 1, index >> 1
            completed.append((level, index, hashed))
        self._peaks.append(hashed)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Root of the tree as it is now; 32 bytes."""
        return _fold(self._peaks)


def root_of(read: ReadNode, size: int) -> bytes:
    """Root of the tree of the first ``size`` leaves; 32 bytes."""
    return Frontier.of(read, size).root()


def inclusion_proof(read: ReadNode, index: int, size: int) -> list[bytes]:
    """Proof that leaf ``index`` is in the tree of ``size`` leaves (RFC 9162 §2.1.3.1), from the leaf up.

    Raises:
        ValueError: There is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("the leaf is not in the tree")
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_root(read, middle, high))
            high = middle
        else:
            path.append(_range_root(read, low, middle))
            low = middle
    return path[::-1]


def consistency_proof(read: ReadNode, old: int, new: int) -> list[bytes]:
    """Proof that the tree of ``old`` leaves is a beginning of that of ``new`` (RFC 9162 §2.1.4.1).

    Raises:
        ValueError: ``old`` is zero or above ``new``.
    """
    if not 0 < old <= new:
        raise ValueError("the old tree has at least one leaf and no more than the new one")
    low, high, path, whole = 0, new, [], True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_range_root(read, middle, high))
            high = middle
        else:
            path.append(_range_root(read, low, middle))
            low, whole = middle, False
    if not whole:
        path.append(_range_root(read, low, high))
    return path[::-1]


def includes(hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows the leaf hash ``hashed`` at ``index`` under ``root`` (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last = index, size - 1
    for step in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            hashed = node_hash(step, hashed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            hashed = node_hash(hashed, step)
        position, last = position >> 1, last >> 1
    return last == 0 and hashed == root


def extends(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the new tree begins with the old one (RFC 9162 §2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    steps = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not steps:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    from_old = from_new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            from_old, from_new = node_hash(step, from_old), node_hash(step, from_new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            from_new = node_hash(from_new, step)
        position, last = position >> 1, last >> 1
    return last == 0 and from_old == old_root and from_new == new_root


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _complete(low: int, high: int) -> list[tuple[int, int]]:
    """The complete subtrees of the leaves ``low`` to ``high``, largest first; ``low`` begins a subtree of that size."""
    found = []
    while low < high:
        level = (high - low).bit_length() - 1
        found.append((level, low >> level))
        low += 1 << level
    return found


def _fold(roots: Sequence[bytes]) -> bytes:
    return reduce(lambda right, left: node_hash(left, right), reversed(roots)) if roots else EMPTY_ROOT


def _range_root(read: ReadNode, low: int, high: int) -> bytes:
    return _fold([read(level, index) for level, index in _complete(low, high)])
