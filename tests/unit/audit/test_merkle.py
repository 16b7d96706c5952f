"""The tree against the well-known one of eight leaves, against a naive reference, and against forged proofs."""

import hashlib
import random

import pytest

from audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    extends,
    includes,
    inclusion_proof,
    leaf_hash,
    root_of,
)

LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
# The roots that Certificate Transparency's implementations agree on for these leaves.
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
MOST_LEAVES = 64
RANDOM_TREES = 10_000


class Tree:
    """A tree in memory, grown by the frontier."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.frontier = Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}
        for leaf in leaves:
            for level, index, hashed in self.frontier.append(leaf_hash(leaf)):
                self.nodes[level, index] = hashed

    def read(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 §2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def test_the_well_known_tree():
    tree = Tree(LEAVES)
    for size, root in enumerate(ROOTS):
        assert root_of(tree.read, size).hex() == root
        assert Frontier.of(tree.read, size).root().hex() == root
    assert ROOTS[0] == EMPTY_ROOT.hex()


def test_every_proof_of_every_small_tree_holds_and_no_other_does():
    leaves = [bytes([number]) * (number % 5) for number in range(MOST_LEAVES)]
    tree = Tree(leaves)
    roots = [root_of(tree.read, size) for size in range(MOST_LEAVES + 1)]
    for size in range(1, MOST_LEAVES + 1):
        for index in range(size):
            hashed, proof = leaf_hash(leaves[index]), inclusion_proof(tree.read, index, size)
            assert includes(hashed, index, size, proof, roots[size])
            assert not includes(leaf_hash(b"another"), index, size, proof, roots[size])
            assert not includes(hashed, index, size, [*proof, hashed], roots[size])
            assert size == 1 or not includes(hashed, (index + 1) % size, size, proof, roots[size])
            assert not includes(hashed, index, size, proof, roots[size - 1])
            for cut in range(len(proof)):
                assert not includes(hashed, index, size, proof[:cut] + proof[cut + 1 :], roots[size])
        for old in range(1, size + 1):
            proof = consistency_proof(tree.read, old, size)
            assert extends(old, roots[old], size, roots[size], proof)
            assert not extends(old, EMPTY_ROOT, size, roots[size], proof)
            assert not extends(old, roots[old], size, EMPTY_ROOT, proof)
            assert not extends(old, roots[old], size, roots[size], [*proof, EMPTY_ROOT])
            for cut in range(len(proof)):
                assert not extends(old, roots[old], size, roots[size], proof[:cut] + proof[cut + 1 :])


def test_ten_thousand_random_trees_agree_with_the_definition():
    source = random.Random(6962)  # noqa: S311 - the same seed, the same trees
    for _ in range(RANDOM_TREES):
        leaves = [source.randbytes(source.randrange(4)) for _ in range(source.randrange(24))]
        tree = Tree(leaves)
        size = len(leaves)
        assert tree.frontier.root() == root_of(tree.read, size) == naive_root(leaves)
        if size:
            old, index = source.randrange(1, size + 1), source.randrange(size)
            proof = consistency_proof(tree.read, old, size)
            assert extends(old, naive_root(leaves[:old]), size, naive_root(leaves), proof)
            proof = inclusion_proof(tree.read, index, size)
            assert includes(leaf_hash(leaves[index]), index, size, proof, naive_root(leaves))


def test_a_frontier_goes_on_where_a_stored_tree_ended():
    tree = Tree(LEAVES)
    for size in range(len(LEAVES)):
        frontier = Frontier.of(tree.read, size)
        for leaf in LEAVES[size:]:
            frontier.append(leaf_hash(leaf))
        assert frontier.root().hex() == ROOTS[-1]


@pytest.mark.parametrize(("index", "size"), [(0, 0), (8, 8), (-1, 8)])
def test_no_proof_of_what_is_not_there(index, size):
    tree = Tree(LEAVES)
    with pytest.raises(ValueError, match="not in the tree"):
        inclusion_proof(tree.read, index, size)
    assert not includes(leaf_hash(LEAVES[0]), index, size, [], EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(0, 8), (9, 8), (-1, 8)])
def test_no_proof_from_what_was_not_there(old, new):
    tree = Tree(LEAVES)
    with pytest.raises(ValueError, match="old tree"):
        consistency_proof(tree.read, old, new)
    assert not extends(old, EMPTY_ROOT, new, bytes.fromhex(ROOTS[8]), [])
