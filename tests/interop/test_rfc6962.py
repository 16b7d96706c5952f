"""Proofs of the log and of the offline verifier before an implementation that we did not write, and the other way."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from audit import merkle as log
from rubrica_verify import merkle as verifier
from tests.unit.audit.test_merkle import Tree

HERE = Path(__file__).parent
JUDGE = HERE.parents[1] / "var" / "interop" / "rfc6962" / "judge"
MOST_LEAVES = 64
LEAVES = [bytes([number]) * (number % 5) for number in range(MOST_LEAVES)]


class Claims:
    """What is to be judged, and whether it is true."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.true: list[bool] = []

    def add(self, path: list[bytes], root: bytes, *, true: bool, **claim: object) -> None:
        self.asked.append({**claim, "root": encode(root), "path": [encode(step) for step in path]})
        self.true.append(true)

    def with_twins(self, path: list[bytes], root: bytes, **claim: object) -> None:
        """A true claim, and forged ones: under another root, with a step more, less or changed."""
        self.add(path, root, true=True, **claim)
        self.add(path, log.leaf_hash(root), true=False, **claim)
        self.add([*path, root], root, true=False, **claim)
        if path:
            self.add(path[1:], root, true=False, **claim)
            self.add([log.leaf_hash(path[0]), *path[1:]], root, true=False, **claim)


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def judge(claims: Claims) -> dict:
    """Ask the program; a missing toolchain is a failure."""
    subprocess.run([HERE / "prepare", "rfc6962"], check=True)
    question = json.dumps({"leaves": [encode(leaf) for leaf in LEAVES], "claims": claims.asked})
    done = subprocess.run([JUDGE], check=True, capture_output=True, text=True, input=question)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def tree():
    return Tree(LEAVES)


@pytest.fixture(scope="module")
def roots(tree):
    return [log.root_of(tree.read, size) for size in range(MOST_LEAVES + 1)]


@pytest.mark.parametrize(
    ("inclusion", "consistency"),
    [(log.inclusion_proof, log.consistency_proof), (verifier.inclusion_path, verifier.consistency_path)],
    ids=["log", "verifier"],
)
def test_every_proof_of_ours_is_accepted_and_no_forged_one(tree, roots, inclusion, consistency):
    claims = Claims()
    for size in range(1, MOST_LEAVES + 1):
        for index in range(size):
            leaf = encode(log.leaf_hash(LEAVES[index]))
            claims.with_twins(inclusion(tree.read, index, size), roots[size], leaf=leaf, index=index, size=size)
        for old in range(1, size + 1):
            path = consistency(tree.read, old, size)
            claims.with_twins(path, roots[size], old=old, old_root=encode(roots[old]), size=size)
    assert claims.true.count(True) == 2 * sum(range(1, MOST_LEAVES + 1))
    assert judge(claims)["accepted"] == claims.true


def test_every_proof_of_theirs_is_accepted_by_ours(roots):
    said = judge(Claims())
    assert [base64.b64decode(root) for root in said["roots"]] == roots
    judged = 0
    for size in range(1, MOST_LEAVES + 1):
        for index, encoded in enumerate(said["inclusion"][size]):
            path, hashed = decode(encoded), log.leaf_hash(LEAVES[index])
            assert log.includes(hashed, index, size, path, roots[size])
            assert not log.includes(hashed, index, size, path, roots[size - 1])
            verifier.check_inclusion(hashed, index, size, path, roots[size])
            with pytest.raises(verifier.ProofRefused):
                verifier.check_inclusion(hashed, index, size, path, roots[size - 1])
            judged += 1
        for old in range(1, size + 1):
            path = decode(said["consistency"][size][old])
            assert log.extends(old, roots[old], size, roots[size], path)
            assert not log.extends(old, roots[old - 1], size, roots[size], path)
            verifier.check_consistency(old, roots[old], size, roots[size], path)
            with pytest.raises(verifier.ProofRefused):
                verifier.check_consistency(old, roots[old - 1], size, roots[size], path)
            judged += 1
    assert judged == 2 * sum(range(1, MOST_LEAVES + 1))


def decode(path: list[str] | None) -> list[bytes]:
    """Go writes an empty list as null."""
    return [base64.b64decode(step) for step in path or []]
