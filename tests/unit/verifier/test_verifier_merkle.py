"""The verifier's tree: the well-known one, the definition, forged proofs; and agreement with the service's own."""

import hashlib
import random

import pytest

from audit import merkle as service
from rubrica_verify.merkle import (
    BLOCK,
    Blocks,
    ProofRefused,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    range_root,
    tree_hash,
)
from tests.unit.audit.test_merkle import LEAVES, ROOTS, Tree, naive_root

MOST_LEAVES = 64


def test_the_well_known_tree():
    for size, root in enumerate(ROOTS):
        hashes = [leaf_hash(leaf) for leaf in LEAVES[:size]]
        assert tree_hash(hashes).hex() == root
        assert Blocks().root(hashes).hex() == root


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 66000, 131329])
def test_a_tree_fed_in_blocks_is_the_tree_of_the_definition(size):
    hashes = [leaf_hash(number.to_bytes(4, "big")) for number in range(size)]
    blocks, tiles = Blocks(), {}
    for start in range(0, size - size % BLOCK, BLOCK):
        tiles |= {(level, index): list(row) for level, index, row in blocks.add(hashes[start : start + BLOCK])}
    tail = hashes[size - size % BLOCK :]
    root = _definition(hashes)
    assert blocks.root(tail) == root
    # A full block may also still be in the making.
    if size == BLOCK:
        assert Blocks().root(hashes) == root
    tiles |= {(level, index): list(row) for level, index, row in blocks.unfinished()}
    for (level, index), row in tiles.items():
        width = BLOCK**level
        at = (index * BLOCK) * width
        expected = [tree_hash(hashes[start : start + width]) for start in range(at, at + len(row) * width, width)]
        assert row == expected
    above = [size // BLOCK**level for level in range(1, 4)]
    assert {key: len(row) for key, row in tiles.items()} == {
        (level, index): min(BLOCK, nodes - index * BLOCK)
        for level, nodes in enumerate(above, 1)
        for index in range(-(-nodes // BLOCK))
    }


def _definition(hashes):
    """MTH of RFC 9162 §2.1.1 over leaf hashes."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(_definition(hashes[:k]), _definition(hashes[k:]))


def test_every_proof_of_every_small_tree_and_no_forged_one_and_the_service_agrees():
    leaves = [bytes([number]) * (number % 5) for number in range(MOST_LEAVES)]
    tree = Tree(leaves)
    hashes = [leaf_hash(leaf) for leaf in leaves]
    roots = [tree_hash(hashes[:size]) for size in range(MOST_LEAVES + 1)]
    for size in range(1, MOST_LEAVES + 1):
        assert range_root(tree.read, 0, size) == roots[size] == service.root_of(tree.read, size)
        for index in range(size):
            path = inclusion_path(tree.read, index, size)
            assert path == service.inclusion_proof(tree.read, index, size)
            check_inclusion(hashes[index], index, size, path, roots[size])
            assert service.includes(hashes[index], index, size, path, roots[size])
            for forged in _forged(path):
                with pytest.raises(ProofRefused):
                    check_inclusion(hashes[index], index, size, forged, roots[size])
            with pytest.raises(ProofRefused):
                check_inclusion(leaf_hash(b"another"), index, size, path, roots[size])
            with pytest.raises(ProofRefused):
                check_inclusion(hashes[index], index, size, path, roots[size - 1])
        for old in range(1, size + 1):
            path = consistency_path(tree.read, old, size)
            assert path == service.consistency_proof(tree.read, old, size)
            check_consistency(old, roots[old], size, roots[size], path)
            assert service.extends(old, roots[old], size, roots[size], path)
            for forged in _forged(path):
                with pytest.raises(ProofRefused):
                    check_consistency(old, roots[old], size, roots[size], forged)
            with pytest.raises(ProofRefused):
                check_consistency(old, roots[old - 1], size, roots[size], path)
            with pytest.raises(ProofRefused):
                check_consistency(old, roots[old], size, roots[size - 1], path)


def _forged(path):
    """One step more, one less, one changed."""
    yield [*path, hashlib.sha256(b"more").digest()]
    for at in range(len(path)):
        yield path[:at] + path[at + 1 :]
    if path:
        yield [*path[:-1], hashlib.sha256(path[-1]).digest()]


def test_random_trees_agree_with_the_definition():
    source = random.Random(9162)  # noqa: S311 - the same seed, the same trees
    for _ in range(500):
        leaves = [source.randbytes(source.randrange(4)) for _ in range(source.randrange(40))]
        assert tree_hash([leaf_hash(leaf) for leaf in leaves]) == naive_root(leaves)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (8, 8), (-1, 8)])
def test_no_leaf_is_outside_of_the_tree(index, size):
    with pytest.raises(ProofRefused, match="no such leaf"):
        check_inclusion(leaf_hash(LEAVES[0]), index, size, [], tree_hash([]))


@pytest.mark.parametrize(("old", "new"), [(0, 8), (9, 8), (-1, 8)])
def test_no_old_tree_is_empty_or_larger(old, new):
    with pytest.raises(ProofRefused, match="old tree"):
        check_consistency(old, tree_hash([]), new, tree_hash([]), [])
