"""What gRPC has of its own: streams, states that are watched, messages that are none."""

import asyncio
import contextlib
import hashlib
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.problems import STATUSES
from api.rpc.errors import STATUS_OF
from api.rpc.proto import signing_pb2
from api.transactions.model import TransactionState
from api.whereabouts import network_of_peer
from rubrica.logs import configure_logs
from rubrica_client import NewDocument
from tests.testkit.core_simulator import NIF
from tests.testkit.edge import AGENCY, AGENCY_NAME, PDF, Edge, an_edge
from tests.testkit.faces import a_face

SERVICE = "/rubrica.v1.SigningService"
METHODS = {"Create": "stream_unary", "Get": "unary_unary", "Watch": "unary_stream", "Collect": "unary_stream"}


def header(*documents: bytes, **fields: Any) -> signing_pb2.CreateRequest:
    announced = [signing_pb2.NewDocument(title="x", sha256=hashlib.sha256(each).digest()) for each in documents]
    fields.setdefault("idempotency_key", secrets.token_hex(8))
    return signing_pb2.CreateRequest(
        transaction=signing_pb2.NewTransaction(citizen_nif=NIF, documents=announced, **fields)
    )


def chunk(number: int, data: bytes) -> signing_pb2.CreateRequest:
    return signing_pb2.CreateRequest(chunk=signing_pb2.DocumentChunk(number=number, data=data))


@contextlib.asynccontextmanager
async def calling(edge: Edge, port: int) -> AsyncIterator[Callable[..., Any]]:
    """Calls with messages as they stand on the wire, each with a fresh proof."""
    key = edge.core.register_client(AGENCY, AGENCY_NAME)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def call(method: str, messages: Iterable[bytes], metadata: Any = None) -> Any:
            proof = (("authorization", edge.bearer(key)["Authorization"]),) if metadata is None else metadata
            kind = METHODS.get(method, "unary_unary")
            made = getattr(channel, kind)(f"{SERVICE}/{method}")
            if kind == "stream_unary":
                return await made(iter(messages), metadata=proof, timeout=20)
            (message,) = messages
            if kind == "unary_stream":
                return [each async for each in made(message, metadata=proof, timeout=20)]
            return await made(message, metadata=proof, timeout=20)

        yield call


def code_of(error: grpc.aio.AioRpcError) -> str:
    return str(dict(error.trailing_metadata()).get("rubrica-code", ""))


async def create(call: Callable[..., Any], *messages: signing_pb2.CreateRequest) -> signing_pb2.CreateAnswer:
    answer = await call("Create", [message.SerializeToString() for message in messages])
    return signing_pb2.CreateAnswer.FromString(answer)


async def refused(call: Callable[..., Any], code: str, *messages: signing_pb2.CreateRequest) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await create(call, *messages)
    assert code_of(told.value) == code, told.value
    assert told.value.code() is STATUS_OF[STATUSES[code]]
    return str(told.value.details())


def test_every_status_has_its_own_in_grpc() -> None:
    assert {STATUS_OF[status] for status in STATUSES.values()} <= set(grpc.StatusCode)
    only_internal = {code for code, status in STATUSES.items() if STATUS_OF[status] is grpc.StatusCode.INTERNAL}
    assert only_internal == {"internal"}
    assert STATUS_OF[HTTPStatus.NOT_FOUND] is grpc.StatusCode.NOT_FOUND


async def test_watch_shows_the_states_in_their_order(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, a_face("grpc", edge) as face:
        agency = face.client(edge.core.register_client(AGENCY, AGENCY_NAME))
        sent = await face.call(agency.send, [NewDocument("Solicitud", PDF)], citizen_nif=NIF, level="B-T")
        watched: list[dict[str, Any]] = []

        async def reached(state: str) -> None:
            async with asyncio.timeout(20):
                while not watched or watched[-1]["state"] != state:
                    await asyncio.sleep(0.05)

        def watch() -> None:
            watched.extend(agency.watch(sent.id))  # one by one, as they come

        watching = asyncio.create_task(face.call(watch))
        await reached("SUBMITTED")
        browser = edge.browser()
        review = (await browser.get(f"/review/{sent.link_token}")).json()
        await reached("REVIEWED")
        await browser.get(str(await edge.approved(review)))
        await asyncio.wait_for(watching, 20)

        states = [status["state"] for status in watched]
        order = list(TransactionState)
        assert states[0] == "SUBMITTED"
        assert states[-1] == "DONE"
        assert sorted(states, key=order.index) == states
        assert all(before != after for before, after in itertools.pairwise(watched))
        assert watched[-1] == await face.call(agency.status, sent.id)


async def test_a_watch_ends_in_order_and_has_to_be_asked_for_again(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, edge.rpc(watch_seconds=0.2) as port, calling(edge, port) as call:
        created = await create(call, header(PDF), chunk(1, PDF))
        request = signing_pb2.WatchRequest(id=created.transaction.id).SerializeToString()
        (seen,) = await call("Watch", [request])
        assert signing_pb2.Transaction.FromString(seen) == created.transaction


async def test_one_agency_watches_so_many_at_once_and_others_still_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.rpc.service.WATCHES_AT_ONCE", 2)
    async with an_edge(tmp_path) as edge, edge.rpc(watch_seconds=1.0) as port, calling(edge, port) as call:
        created = await create(call, header(PDF), chunk(1, PDF))
        request = signing_pb2.WatchRequest(id=created.transaction.id).SerializeToString()

        async def watch() -> str:
            return await outcome(call, "Watch", [request], None)

        assert sorted(await asyncio.gather(watch(), watch(), watch())) == ["busy", "ok", "ok"]
        assert await watch() == "ok"


async def test_a_broken_upload_goes_on_with_the_same_key(tmp_path: Path) -> None:
    first, second = PDF + b"first", PDF + b"second"
    async with an_edge(tmp_path) as edge, edge.rpc() as port, calling(edge, port) as call:
        asked = header(first, second)
        detail = await refused(call, "malformed_request", asked, chunk(1, first), chunk(2, second[:5]))
        assert "document 2" in detail
        done = await create(call, asked, chunk(1, b"passed over"), chunk(2, second[:5]), chunk(2, second[5:]))
        assert done.transaction.state == signing_pb2.STATE_SUBMITTED
        assert [each.sha256 for each in done.transaction.documents] == [
            hashlib.sha256(each).digest() for each in (first, second)
        ]
        # Answered before any octet.
        assert await create(call, asked) == done


async def test_octets_that_are_not_those_announced_are_refused(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, edge.rpc() as port, calling(edge, port) as call:
        for messages in (
            (chunk(1, PDF),),
            (),
            (header(PDF),),
            (header(PDF), chunk(1, PDF + b"more")),
            (header(PDF), header(PDF)),
            (header(PDF), chunk(0, PDF)),
            (header(PDF), chunk(1, b""), chunk(1, PDF)),
            (header(PDF), chunk(2, PDF)),
            (header(PDF, PDF), chunk(2, PDF), chunk(1, PDF)),
            (header(PDF, PDF), chunk(1, PDF), chunk(2, PDF[:3]), chunk(1, PDF)),
            (header(PDF, idempotency_key=""), chunk(1, PDF)),
            (header(PDF, idempotency_key="ñ"), chunk(1, PDF)),
            (signing_pb2.CreateRequest(transaction=signing_pb2.NewTransaction(citizen_nif=NIF)),),
        ):
            await refused(call, "malformed_request", *messages)
        too_much = signing_pb2.NewDocument(title="x" * 300_000, sha256=b"x" * 32)
        large = signing_pb2.CreateRequest(transaction=signing_pb2.NewTransaction(documents=[too_much]))
        await refused(call, "malformed_request", large)
        unannounced = signing_pb2.NewTransaction(
            idempotency_key="k", citizen_nif=NIF, documents=[signing_pb2.NewDocument(title="x")]
        )
        await refused(call, "malformed_request", signing_pb2.CreateRequest(transaction=unannounced), chunk(1, PDF))
        assert list((tmp_path / "documents" / "scratch").iterdir()) == []


async def test_a_refused_document_cancels_its_transaction(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge, edge.rpc() as port, calling(edge, port) as call:
        asked = (header(PDF, b"GIF89a"), chunk(1, PDF), chunk(2, b"GIF89a"))
        await refused(call, "unsupported_document", *asked)
        assert [path for path in (tmp_path / "documents").rglob("*") if path.is_file()] == []
        assert "cancelled" in await refused(call, "state_conflict", *asked)


async def outcome(call: Callable[..., Any], method: str, messages: list[bytes], metadata: Any) -> str:
    """The code of ours that a call ended with, else the status; ``ok`` if it was answered."""
    try:
        await call(method, messages, metadata)
    except grpc.aio.AioRpcError as error:
        return code_of(error) or error.code().name
    return "ok"


async def test_garbage_gets_a_code_and_never_a_fault(tmp_path: Path) -> None:
    seed = 20261122
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    outcomes: set[str] = set()
    async with an_edge(tmp_path) as edge, edge.rpc(watch_seconds=0.05) as port, calling(edge, port) as call:
        created = await create(call, header(PDF), chunk(1, PDF))
        named = signing_pb2.CollectRequest(id=created.transaction.id, number=1).SerializeToString()
        known = [header(PDF).SerializeToString(), named, chunk(1, PDF).SerializeToString(), b"\xff\xfe", b""]
        for number in range(300):
            method = dice.choice([*METHODS, "Cancel"])
            messages = []
            for _ in range(dice.randrange(1, 4) if method == "Create" else 1):
                octets = bytearray(dice.choice(known))
                for _ in range(dice.randrange(4)):
                    place = dice.randrange(len(octets) + 1)
                    octets[place : place + 1] = dice.randbytes(1)
                messages.append(bytes(octets))
            metadata = dice.choice([None, None, (), (("authorization", "Bearer a.b.c"),), (("authorization", "x"),)])
            ended = await outcome(call, method, messages, metadata)
            assert ended in {*STATUSES, "ok"} - {"internal"}, f"seed {seed}, {number}: {method} {messages!r}"
            outcomes.add(ended)
        assert await outcome(call, "Nothing", [b""], None) == "UNIMPLEMENTED"
    assert {"malformed_request", "caller_refused", "not_found", "ok"} <= outcomes


async def test_a_bug_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    configure_logs("info")  # anew, to where this test looks
    async with an_edge(tmp_path) as edge, edge.rpc() as port, calling(edge, port) as call:

        async def broken(*_: Any) -> None:
            raise ValueError("the secret is 123456")

        monkeypatch.setattr(edge.transactions, "wants_grant", broken)
        for method in ("Get", "Watch"):
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await call(method, [signing_pb2.GetRequest(id="x").SerializeToString()])
            assert told.value.code() is grpc.StatusCode.INTERNAL
            assert code_of(told.value) == "internal"
            assert "123456" not in str(told.value.details())
            event = str(told.value.details()).rpartition(":")[2]
            assert event in capsys.readouterr().out


# --- those who keep places


@contextlib.asynccontextmanager
async def silent_calls(folder: Path) -> AsyncIterator[tuple[Edge, Callable[..., Any]]]:
    """An edge, and how to call it without ever sending a message."""

    async def never() -> AsyncIterator[bytes]:
        await asyncio.sleep(600)
        yield b""

    async with (
        an_edge(folder) as edge,
        edge.rpc() as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield edge, lambda method, metadata: channel.stream_unary(f"{SERVICE}/{method}")(never(), metadata=metadata)


async def waited_for(call: Any) -> str:
    """How a call ends that is refused by itself, in less time than any test's."""
    with pytest.raises(grpc.aio.AioRpcError) as told:
        async with asyncio.timeout(10):
            await call
    return code_of(told.value)


def proof(edge: Edge, key: Any, client_id: str = AGENCY) -> Any:
    return (("authorization", edge.bearer(key, client_id)["Authorization"]),)


LIKE_A_PROOF = (("authorization", "Bearer a.b.c"),)


@pytest.mark.parametrize("method", ["Create", "Get", "Watch"])
async def test_without_a_proof_nobody_waits_for_a_message(method: str, tmp_path: Path) -> None:
    async with silent_calls(tmp_path) as (_, silent):
        assert await waited_for(silent(method, ())) == "caller_refused"


async def test_a_false_proof_ends_a_create_before_its_first_message(tmp_path: Path) -> None:
    async with silent_calls(tmp_path) as (_, silent):
        assert await waited_for(silent("Create", LIKE_A_PROOF)) == "caller_refused"


@pytest.mark.parametrize("method", ["Create", "Get", "Watch"])
async def test_the_first_message_comes_at_once_or_not_at_all(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("api.rpc.errors", "api.rpc.service"):
        monkeypatch.setattr(f"{place}.FIRST_MESSAGE_SECONDS", 0.2)
    async with silent_calls(tmp_path) as (edge, silent):
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        assert await waited_for(silent(method, proof(edge, key))) == "malformed_request"


async def test_neither_a_network_nor_an_agency_takes_the_places_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.rpc.places.CALLS_EACH", 2)
    monkeypatch.setattr("api.rpc.service.FIRST_MESSAGE_SECONDS", 2.0)
    async with silent_calls(tmp_path) as (edge, silent):
        key, other = (edge.core.register_client(name, name) for name in (AGENCY, "otra"))
        # An agency that has two calls waiting gets no third, and another one from the same network does not notice.
        held = [silent("Create", proof(edge, key)) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert await waited_for(silent("Create", proof(edge, key))) == "busy"
        assert await waited_for(silent("Create", proof(edge, other, "otra"))) == "malformed_request"
        # Nor does a network that has proved nothing yet.
        held += [silent("Get", LIKE_A_PROOF) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert await waited_for(silent("Get", LIKE_A_PROOF)) == "busy"
        for call in held:
            call.cancel()
        await asyncio.sleep(0.2)
        assert await waited_for(silent("Create", proof(edge, key))) == "malformed_request"


@pytest.mark.parametrize(("slowest", "ends"), [(1_000_000, "malformed_request"), (10, "ok")])
async def test_documents_come_at_some_speed(
    slowest: int, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.rpc.service.PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("api.rpc.service.SLOWEST_BYTES_PER_SECOND", slowest)
    document = PDF + b"." * (30 - len(PDF))

    async def drip() -> AsyncIterator[bytes]:
        yield header(document).SerializeToString()
        for at in range(0, len(document), 3):
            await asyncio.sleep(0.1)
            yield chunk(1, document[at : at + 3]).SerializeToString()

    async with an_edge(tmp_path) as edge, edge.rpc() as port:
        key = edge.core.register_client(AGENCY, AGENCY_NAME)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_unary(f"{SERVICE}/Create")(drip(), metadata=proof(edge, key))
            if ends == "ok":
                created = signing_pb2.CreateAnswer.FromString(await call)
                assert created.transaction.state == signing_pb2.STATE_SUBMITTED
            else:
                assert await waited_for(call) == ends


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:192.0.2.7:50051", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50051", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:50052", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:50051", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("unix:", "unix"),
    ],
)
def test_callers_are_counted_by_their_network(peer: str, network: str) -> None:
    assert network_of_peer(peer) == network
