"""What is a leaf, and what must be true of leaves among each other: each rule kept, and broken."""

import contextlib
import random
from typing import Any

import cbor2
import pytest

from domain.ids import new_id
from rubrica_verify import spill
from rubrica_verify.invariants import Invariants
from rubrica_verify.leaves import LeafRefused, UnknownVersion, read_leaf
from rubrica_verify.report import Fault, Report
from rubrica_verify.spill import Spill
from tests.testkit.verifying import BEGUN_MS, a_history, a_leaf

ID = "0123456789ABCDEFGHJKMNPQRS"
GOOD = {"v": 1, "id": ID, "tag": "ADMIN", "time": BEGUN_MS, "pid": None, "facts": {"action": "client_add", "n": 3}}
PID, OTHER = b"p" * 32, b"q" * 32


def encode(**changes: Any):
    return cbor2.dumps({**GOOD, **changes}, canonical=True)


def test_a_leaf_is_read():
    leaf = read_leaf(encode(pid=PID, facts={"a": None, "b": b"\0", "c": -5, "d": "é"}))
    assert (leaf.id, leaf.tag, leaf.time, leaf.pid) == (ID, "ADMIN", BEGUN_MS, PID)
    assert leaf.facts == {"a": None, "b": b"\0", "c": -5, "d": "é"}


def test_a_type_that_a_newer_service_writes_is_a_leaf():
    assert read_leaf(encode(tag="SHARD_OPEN")).tag == "SHARD_OPEN"


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_left_to_a_newer_verifier(version):
    with pytest.raises(UnknownVersion):
        read_leaf(encode(v=version, more="members"))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\xff",
        cbor2.dumps([1, 2]),
        cbor2.dumps(GOOD),  # in another order
        encode() + b"\0",
        encode()[:-1],
        encode().replace(b"\x03", b"\x18\x03"),  # a number longer than it needs
        b"\xbf" + encode()[1:] + b"\xff",  # of indefinite length
        encode(v="1"),
        encode(v=True),
        encode(more=1),
        cbor2.dumps({name: value for name, value in GOOD.items() if name != "pid"}, canonical=True),
        encode(id=ID[:-1]),
        encode(id=ID[:-1] + "I"),
        encode(id=ID.encode()),
        encode(tag="admin"),
        encode(tag=""),
        encode(time=-1),
        encode(time=1 << 48),
        encode(time=1.5),
        encode(pid=b"short"),
        encode(pid="p" * 32),
        encode(facts=[]),
        encode(facts={1: 2}),
        encode(facts={"a": [1]}),
        encode(facts={"a": True}),
        encode(facts={"a": 0.5}),
        b"\x81" * 5000 + b"\0",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xc0\x61x",
        b"\xd8\x23\x61(",
    ],
)
def test_what_is_no_leaf_is_refused(encoded):
    with pytest.raises(LeafRefused):
        read_leaf(encoded)


def test_no_octets_at_all_bring_the_reader_down():
    source = random.Random(8949)  # noqa: S311 - the same seed, the same octets
    for number in range(20_000):
        data = bytearray(encode()) if number % 2 else bytearray(source.randbytes(source.randrange(60)))
        for _ in range(source.randrange(1, 4)):
            if data:
                data[source.randrange(len(data))] = source.randrange(256)
        with contextlib.suppress(LeafRefused, UnknownVersion):
            read_leaf(bytes(data))


class Told:
    """A made-up log, told leaf by leaf."""

    def __init__(self) -> None:
        self.leaves = []
        self.now = BEGUN_MS

    def say(self, tag, pid=PID, **facts: Any):
        leaf_id = new_id()
        self.leaves.append(a_leaf(tag, time=self.now, leaf_id=leaf_id, pid=pid, **facts))
        self.now += 10
        return leaf_id

    def approve(self, cid="c1", pid=PID, **facts: Any):
        return self.say("AUTH_OK", pid, **{"cid": cid, "list": b"l" * 32, **facts})

    def intend(self, item=1, cid="c1"):
        return self.say("INTENT", cid=cid, item=item)

    def end(self, intent, item=1, tag="COMPLETE", cid="c1", pid=PID):
        return self.say(tag, pid, cid=cid, item=item, intent=intent)

    def faults(self, scratch=None):
        report = Report("full")
        with Invariants(len(self.leaves), scratch) as invariants:
            for index, leaf in enumerate(self.leaves):
                invariants.add(index, read_leaf(leaf), report)
            invariants.conclude(report)
        self.report = report
        return dict(report.counts)


@pytest.fixture
def told():
    return Told()


def test_a_good_log_breaks_no_rule(told):
    told.approve()
    told.end(told.intend(0), 0, "CERT_ISSUE")
    first = told.intend()
    told.end(first, tag="ABORTED", pid=None)
    told.end(told.intend())
    told.say("CERT_ISSUE", None, kind="seal", spki=b"s" * 32)
    told.say("AUTH_OK", cid="another", purpose="pin")
    told.intend(2)
    assert told.faults() == {}
    assert told.report.facts == {"open_intents": 1}


def test_i2_an_intent_may_wait_for_sixty_seconds(told):
    told.approve()
    told.intend()
    told.now += 59_980
    told.say("START")
    assert told.faults() == {}
    told.now += 100
    told.say("STOP")
    assert told.faults() == {Fault.I2: 1}


def test_i2_an_intent_that_ended_late_has_ended(told):
    told.approve()
    intent = told.intend()
    told.now += 3_600_000
    told.say("START")
    told.end(intent, tag="ABORTED", pid=None)
    assert told.faults() == {}


@pytest.mark.parametrize("second", ["ABORTED", "COMPLETE"])
def test_i2_an_intent_ends_once(told, second):
    told.approve()
    intent = told.intend()
    told.end(intent, tag="ABORTED")
    told.end(intent, tag=second)
    assert told.faults() == {Fault.I2: 1}


def test_i2_an_end_has_an_intent_of_its_item_and_approval_before_it(told):
    told.approve()
    told.approve("c2")
    told.end(new_id())
    told.end(told.intend(4), 5)
    told.end(told.intend(6), 6, cid="c2")
    told.now += 61_000
    told.say("STOP")
    # The last one's intent stays open as well.
    assert told.faults() == {Fault.I2: 4}


def test_i2_an_end_before_its_intent_is_none(told):
    told.approve()
    intent = told.intend()
    told.end(intent)
    told.leaves[1:3] = reversed(told.leaves[1:3])
    told.now += 61_000
    told.say("STOP")
    assert told.faults() == {Fault.I2: 2}


@pytest.mark.parametrize(("item", "tag"), [(1, "COMPLETE"), (0, "CERT_ISSUE")])
def test_i3_nothing_is_signed_twice(told, item, tag):
    told.approve()
    told.end(told.intend(item), item, tag)
    told.end(told.intend(item), item, tag)
    assert told.faults() == {Fault.I3: 1}


def test_i3_the_same_item_of_another_approval_is_another(told):
    for cid in ("c1", "c2"):
        told.approve(cid)
        told.end(told.intend(cid=cid), cid=cid)
    assert told.faults() == {}


def test_i4_time_runs_backwards_by_two_seconds_at_most(told):
    told.say("START")
    told.now -= 2_010
    told.say("STOP")
    assert told.faults() == {}
    told.now -= 11
    told.say("START")
    assert told.faults() == {Fault.I4: 1}


@pytest.mark.parametrize(
    ("pid", "facts"), [(OTHER, {}), (PID, {"refusal": "locked"}), (PID, {"cid": "c2"}), (None, {})], ids=str
)
def test_i5_a_signature_has_this_citizens_approval_before_it(told, pid, facts):
    told.approve(pid=pid, **facts)
    told.end(told.intend())
    assert told.faults() == {Fault.I5: 1}


def test_i5_an_approval_that_comes_later_is_none_and_neither_is_a_login(told):
    told.say("AUTH_OK", cid="c1", purpose="pin")
    told.end(told.intend())
    told.approve()
    assert told.faults() == {Fault.I5: 1}


def test_an_id_is_used_once(told):
    told.say("START")
    told.say("STOP")
    told.leaves.append(told.leaves[0])
    assert told.faults() == {Fault.DUPLICATE: 1}
    assert "leaf 2: it has the id of leaf 0" in told.report.as_text().replace("duplicate: ", "")


@pytest.mark.parametrize("facts", [{"cid": "c1"}, {"cid": "c1", "item": "1"}, {"item": 1}, {"cid": 1, "item": 1}])
def test_an_intent_says_of_what(told, facts):
    told.say("INTENT", **facts)
    assert told.faults() == {Fault.LEAF: 1}


def test_more_leaves_than_memory_takes_are_judged_the_same(told, tmp_path, monkeypatch):
    told.leaves = a_history(3_000, random.Random(3))  # noqa: S311 - the same seed, the same log
    told.leaves.append(told.leaves[17])
    told.now = BEGUN_MS + 10**8
    told.end(new_id(), cid="never approved")
    expected = told.faults()
    assert expected[Fault.DUPLICATE] == 1
    assert expected[Fault.I5] == 1
    monkeypatch.setattr(spill, "PER_BUCKET", 100)
    monkeypatch.setattr(Spill.__init__, "__defaults__", (2_000,))
    assert told.faults(tmp_path) == expected
    assert list(tmp_path.iterdir()) == []


def test_spilled_records_come_back_by_key_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "PER_BUCKET", 50)
    source = random.Random(5)  # noqa: S311 - the same seed, the same records
    keys = [source.randbytes(4) for _ in range(40)]
    given = [(source.choice(keys), number) for number in range(1_000)]
    with Spill(len(given), tmp_path, 300) as records:
        for key, number in given:
            records.add(key, key + number.to_bytes(4, "big"))
        assert len(list(tmp_path.iterdir())) == 1
        buckets = [[bucket[at : at + 8] for at in range(0, len(bucket), 8)] for bucket in records.buckets()]
    assert len(buckets) > 5
    assert list(tmp_path.iterdir()) == []
    for key in keys:
        (together,) = [bucket for bucket in buckets if any(record[:4] == key for record in bucket)] or [[]]
        found = [int.from_bytes(record[4:], "big") for record in together if record[:4] == key]
        assert found == [number for name, number in given if name == key]
