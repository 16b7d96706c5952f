"""The parts below: store, fetch, seals, settings of trust, errors from the core."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.serialization import Encoding

from api.fetch import LIMIT_BYTES, AllowlistFetch
from api.storage import DocumentStore, StoredId
from api.transactions.seals import Sealer, load_key
from authn.client import CallersClient, CoreFault, FactorsClient
from documents.model import FetchKind
from domain.digests import Digest
from domain.errors import DependencyUnavailable, DocumentTooLarge, FactorLocked, NotFound, TimestampUnavailable
from rubrica.serving import core_channel
from rubrica.trust import load_trust
from signer.client import SignatureActivationClient
from tests.testkit.core_simulator import CoreSimulator
from tests.testkit.pki import InMemoryPKI
from tests.testkit.time import FrozenClock


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


# --- store


async def test_the_store_keeps_octets_under_names_of_its_own(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path / "store")
    stored = await store.write(stream(b"ab", b"", b"c"), limit_bytes=3)
    assert (stored.size_bytes, stored.digest) == (3, Digest.of(b"abc"))
    assert b"".join([chunk async for chunk in store.read(stored.stored_id)]) == b"abc"
    path = store.path(stored.stored_id)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    copy = await store.copy(stored.stored_id)
    assert copy.read_bytes() == b"abc"
    kept = await store.keep(copy)
    assert kept != stored.stored_id
    await store.delete(stored.stored_id, None, stored.stored_id)
    assert not path.exists()
    assert store.path(kept).read_bytes() == b"abc"


async def test_a_broken_write_leaves_nothing(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path)

    async def breaks() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(DocumentTooLarge):
        await store.write(stream(b"abcd"), limit_bytes=3)
    with pytest.raises(ConnectionResetError):
        await store.write(breaks(), limit_bytes=10)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 26, "0" * 26, "0" * 25 + "/", "../" + "0" * 23])
async def test_names_from_outside_are_no_ids(tmp_path: Path, name: str) -> None:
    store = DocumentStore(tmp_path / "store")
    (tmp_path / "store" / "00").mkdir()
    with pytest.raises(NotFound):
        store.path(StoredId(name))
    await store.delete(StoredId(name))


async def test_scratch_of_a_crash_is_swept(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path)
    old, new = store.scratch(), store.scratch()
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1_000, 1_000))
    assert await store.sweep(older_than_epoch_seconds=2_000) == 1
    assert (old.exists(), new.exists()) == (False, True)


# --- fetch

TSA = "http://tsa.test/tsa"
OCSP = "http://pki.test:8080/ocsp"


def fetching(
    answer: Callable[[httpx.Request], httpx.Response], *, now: list[float] | None = None
) -> tuple[AllowlistFetch, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request)

    moments = now or [0.0]
    fetch = AllowlistFetch(
        [OCSP], tsa_url=TSA, transport=httpx.MockTransport(handle), deadline_seconds=0.3, monotonic=lambda: moments[0]
    )
    return fetch, asked


def ok(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"evidence")


async def test_fetch_asks_whom_it_may() -> None:
    fetch, asked = fetching(ok)
    assert await fetch(FetchKind.TIMESTAMP, "http://elsewhere.test/", b"query") == b"evidence"
    assert await fetch(FetchKind.OCSP, OCSP, b"request") == b"evidence"
    assert await fetch(FetchKind.CRL, f"{OCSP}/ca.crl", None) == b"evidence"
    assert [(str(each.url), each.method, each.headers.get("content-type")) for each in asked] == [
        (TSA, "POST", "application/timestamp-query"),
        (OCSP, "POST", "application/ocsp-request"),
        (f"{OCSP}/ca.crl", "GET", None),
    ]
    await fetch.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://pki.test:8080/",
        "http://pki.test:8080/ocspx",
        "http://pki.test:8080/ocsp/../admin",
        "http://pki.test:8080/ocsp/%2e%2e/admin",
        "http://pki.test:8080/ocsp/%2E%2E%2Fadmin",
        "http://pki.test/ocsp",
        "https://pki.test:8080/ocsp",
        "http://pki.test.evil.example:8080/ocsp",
        "http://pki.test:8080@evil.example/ocsp",
        "http://user@pki.test:8080/ocsp",
        "http://pki.test:99999/ocsp",
        "http://[::1/ocsp",
        "file:///etc/passwd",
        "http://pki.test:8080\\@evil.example/ocsp",
        "",
        "http://pki.test:8080/ocsp\r\nHost: evil",
    ],
)
async def test_fetch_asks_nobody_else(url: str) -> None:
    fetch, asked = fetching(ok)
    with pytest.raises(TimestampUnavailable, match="not allowed"):
        await fetch(FetchKind.OCSP, url, b"request")
    assert asked == []


def slow(_request: httpx.Request) -> httpx.Response:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.05)
            yield b"x"

    return httpx.Response(200, content=trickle())


@pytest.mark.parametrize(
    "answer",
    [
        lambda _request: httpx.Response(302, headers={"Location": OCSP}),
        lambda _request: httpx.Response(500),
        lambda _request: httpx.Response(200, content=b"x" * (LIMIT_BYTES + 1)),
        slow,
    ],
    ids=["redirect", "error", "too large", "trickle"],
)
async def test_fetch_takes_no_bad_answer(answer: Callable[[httpx.Request], httpx.Response]) -> None:
    fetch, asked = fetching(answer)
    with pytest.raises(TimestampUnavailable):
        await asyncio.wait_for(fetch(FetchKind.OCSP, OCSP, b"request"), 2)
    assert len(asked) == 1


async def test_who_fails_three_times_is_left_alone_for_a_while() -> None:
    now, down = [0.0], [True]
    fetch, asked = fetching(lambda _request: httpx.Response(503 if down[0] else 200, content=b"x"), now=now)
    for _ in range(5):
        with pytest.raises(TimestampUnavailable):
            await fetch(FetchKind.TIMESTAMP, "", b"query")
    assert len(asked) == 3
    down[0] = False
    assert await fetch(FetchKind.OCSP, OCSP, b"request") == b"x"  # another origin is not held to account
    now[0] = 16.0
    assert await fetch(FetchKind.TIMESTAMP, "", b"query") == b"x"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(404),
        lambda: httpx.Response(429),
        lambda: httpx.Response(302, headers={"Location": OCSP}),
        lambda: httpx.Response(200, content=b"x" * (LIMIT_BYTES + 1)),
    ],
    ids=["not found", "too many", "elsewhere", "too large"],
)
async def test_what_a_stranger_asks_for_in_vain_closes_no_service(answer: Callable[[], httpx.Response]) -> None:
    fetch, _ = fetching(lambda request: answer() if "nothing" in str(request.url) else ok(request))
    for number in range(6):
        with pytest.raises(TimestampUnavailable):
            await fetch(FetchKind.OCSP, f"{OCSP}/nothing-{number}", b"request")
    assert await fetch(FetchKind.OCSP, OCSP, b"request") == b"evidence"


async def test_one_service_away_takes_no_other_of_its_host_with_it() -> None:
    fetch = AllowlistFetch(
        ["http://pki.test/ocsp", "http://pki.test/crl"],
        tsa_url="http://pki.test/tsa",
        transport=httpx.MockTransport(
            lambda request: httpx.Response(503) if "ocsp" in str(request.url) else ok(request)
        ),
    )
    for _ in range(4):
        with pytest.raises(TimestampUnavailable):
            await fetch(FetchKind.OCSP, "http://pki.test/ocsp", b"request")
    assert await fetch(FetchKind.TIMESTAMP, "", b"query") == b"evidence"
    assert await fetch(FetchKind.CRL, "http://pki.test/crl/ca", None) == b"evidence"
    with pytest.raises(TimestampUnavailable, match="503"):
        await fetch(FetchKind.CRL, "http://pki.test/ocsp/crl", None)  # asked, under the same prefix for another kind


async def test_without_an_authority_there_are_no_timestamps() -> None:
    fetch = AllowlistFetch([OCSP], tsa_url=None, transport=httpx.MockTransport(ok))
    assert await fetch(FetchKind.OCSP, OCSP, b"query") == b"evidence"
    with pytest.raises(TimestampUnavailable, match="not allowed"):
        await fetch(FetchKind.TIMESTAMP, OCSP, b"query")


# --- seals


def test_a_seal_opens_in_its_place_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "edge.key"
    sealer = Sealer(load_key(path, create=True))
    sealed = sealer.seal("stagings.sad", "row 1", b"secret")
    assert b"secret" not in sealed
    assert Sealer(load_key(path, create=True)).open("stagings.sad", "row 1", sealed) == b"secret"
    assert sealer.seal("stagings.sad", "row 1", b"secret") != sealed
    for label, row, changed in (
        ("stagings.r", "row 1", sealed),
        ("stagings.sad", "row 2", sealed),
        ("stagings.sad", "row 1", sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(InvalidTag):
            sealer.open(label, row, changed)
    with pytest.raises(InvalidTag):
        Sealer(bytes(32)).open("stagings.sad", "row 1", sealed)
    assert str(sealer.key) not in repr(sealer)


def test_a_sealing_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edge.key"
    with pytest.raises(FileNotFoundError):
        load_key(path, create=False)
    load_key(path, create=True)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="owner only"):
        load_key(path, create=False)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        load_key(path, create=False)


# --- trust


def test_trust_tells_anchors_from_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no trust anchor"):
        load_trust(tmp_path)
    certificates = InMemoryPKI().authority.certificates
    (tmp_path / "ca.pem").write_bytes(certificates.ca.public_bytes(Encoding.PEM))
    with pytest.raises(ValueError, match="no trust anchor"):
        load_trust(tmp_path)
    (tmp_path / "root.pem").write_bytes(certificates.root.public_bytes(Encoding.PEM))
    trust = load_trust(tmp_path)
    assert trust.anchors == (certificates.root.public_bytes(Encoding.DER),)
    assert trust.intermediates == (certificates.ca.public_bytes(Encoding.DER),)


# --- clients of the core


async def test_errors_of_the_core_come_back_as_ours(tmp_path: Path) -> None:
    core = CoreSimulator(FrozenClock())
    async with core.serving(tmp_path / "core.sock") as channel:
        core.faults["Challenge"] = [FactorLocked("too many", retry_after_seconds=60), grpc.StatusCode.DATA_LOSS]
        with pytest.raises(FactorLocked, match="too many") as locked:
            await FactorsClient(channel).challenge()
        assert locked.value.retry_after_seconds == 60
        with pytest.raises(CoreFault, match="DATA_LOSS"):
            await FactorsClient(channel).challenge()
        with pytest.raises(NotFound):
            await SignatureActivationClient(channel).request_state("nothing")


async def test_a_core_that_is_not_there_is_a_dependency_and_found_again(tmp_path: Path) -> None:
    core = CoreSimulator(FrozenClock())
    async with core_channel(tmp_path / "core.sock") as channel:
        with pytest.raises(DependencyUnavailable):
            await CallersClient(channel).authenticate_client("a.b.c")
        async with core.serving(tmp_path / "core.sock"):
            for _ in range(40):
                try:
                    challenge = await FactorsClient(channel).challenge()
                    break
                except DependencyUnavailable:
                    await asyncio.sleep(0.1)
            else:
                pytest.fail("the core came back and was not found")
        assert challenge.sap_public_key == core.sap_point


async def test_a_core_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authn.client.QUICK_SECONDS", 0.2)
    core = CoreSimulator(FrozenClock())

    async def hang(_request: object, _context: object) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr("tests.testkit.core_simulator._Methods.__getattr__", lambda _self, _name: hang)
    async with core.serving(tmp_path / "core.sock") as channel:
        with pytest.raises(DependencyUnavailable):
            await asyncio.wait_for(FactorsClient(channel).challenge(), 5)
