"""Register, outbox and callers on PostgreSQL: the same code, another database."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncEngine

import audit.log
from audit.log import Log
from authn.agencies import WEB, Caller, CallerRegister, Right, client_grant
from authn.assertions import ClientAuthenticator
from authn.columns import ColumnCipher, data_key
from authn.messages.outbox import MessageState, Outbox, OutboxSender, message
from authn.registration.citizens import CitizenRegister, citizen
from authn.tables import metadata
from certs.clients import ClientCertificates
from domain import jws
from domain.clock import SystemClock
from domain.errors import AlreadyRegistered, CallerRefused, StateConflict
from rubrica.database import make_engine
from tests.testkit.authn import a_person
from tests.testkit.postgres import postgres
from tests.testkit.time import FrozenClock
from tests.testkit.vault import AllAtOnce, FakeVault


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
async def engine(server: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(server)
    async with engine.begin() as connection:
        for tables in (metadata, audit.log.metadata):
            await connection.run_sync(tables.drop_all)
            await connection.run_sync(tables.create_all)
    yield engine
    await engine.dispose()


async def test_cores_that_start_together_agree_on_one_data_key(engine: AsyncEngine) -> None:
    vault = AllAtOnce(5)
    async with asyncio.timeout(30):
        ciphers = await asyncio.gather(*(ColumnCipher.load(engine, vault) for _ in range(5)))
    async with engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(data_key)) == 1
    assert {cipher.open(ciphers[0].seal("value", "a"), "a") for cipher in ciphers} == {"value"}


async def test_of_twins_that_register_at_once_one_is_entered(engine: AsyncEngine) -> None:
    vault = FakeVault()
    register = CitizenRegister(vault, await ColumnCipher.load(engine, vault), SystemClock())

    async def enter() -> None:
        prepared = await register.prepare(a_person())
        async with engine.begin() as connection:
            await register.add(connection, prepared)

    answers = await asyncio.gather(*(enter() for _ in range(5)), return_exceptions=True)
    assert sorted(isinstance(answer, AlreadyRegistered) for answer in answers) == [False] + [True] * 4
    async with engine.connect() as connection:
        entered = await register.find(connection, await register.nif_index("12345678Z"))
        assert await connection.scalar(sa.select(sa.func.count()).select_from(citizen)) == 1
    assert entered is not None
    assert (entered.given_name, entered.registered.utcoffset()) == ("María", timedelta(0))


async def test_generations_are_never_given_twice(engine: AsyncEngine) -> None:
    vault = FakeVault()
    register = CitizenRegister(vault, await ColumnCipher.load(engine, vault), SystemClock())
    prepared = await register.prepare(a_person())
    async with engine.begin() as connection:
        await register.add(connection, prepared)

    async def bump() -> int:
        async with engine.begin() as connection:
            return await register.bump_generation(connection, prepared.id)

    answers = await asyncio.gather(*(bump() for _ in range(5)), return_exceptions=True)
    bumped = [answer for answer in answers if isinstance(answer, int)]
    assert all(isinstance(answer, int | StateConflict) for answer in answers)
    assert sorted(bumped) == list(range(2, 2 + len(bumped)))
    async with engine.connect() as connection:
        now = await register.get(connection, prepared.id)
    assert now is not None
    assert now.generation == 1 + len(bumped)


class Gateway:
    def __init__(self) -> None:
        self.taken: list[str] = []

    async def hand_over(self, message_id: str, phone: str, text: str, *, deadline_seconds: float) -> None:
        assert (phone, text, deadline_seconds) == ("+34612345678", "Codigo 1", 10.0)
        self.taken.append(message_id)


async def test_senders_of_two_cores_share_the_outbox(engine: AsyncEngine) -> None:
    clock = FrozenClock()
    outbox = Outbox(ColumnCipher({1: bytes(32)}), clock)
    names = {f"m{number}" for number in range(30)}
    async with engine.begin() as connection:
        for name in names:
            expires = clock.now() + timedelta(minutes=5)
            await outbox.put(connection, message_id=name, phone="+34612345678", text="Codigo 1", expires=expires)
    gateway = Gateway()
    senders = [asyncio.create_task(OutboxSender(engine, outbox, gateway, clock).run()) for _ in range(2)]
    handed_over = sa.select(sa.func.count()).where(message.c.state == MessageState.HANDED_OVER.value)
    async with asyncio.timeout(20), engine.connect() as connection:
        while await connection.scalar(handed_over) != len(names):
            await connection.rollback()
            await asyncio.sleep(0.05)
    for sender in senders:
        sender.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    assert (len(gateway.taken), set(gateway.taken)) == (len(names), names)


async def test_an_assertion_is_good_once(engine: AsyncEngine) -> None:
    clock, key = FrozenClock(), ec.generate_private_key(ec.SECP256R1())
    web = Caller(id=WEB, name="Rúbrica", rights=frozenset({Right.SIGN}), return_urls=())
    callers = CallerRegister(ColumnCipher({1: bytes(32)}), clock, Log(clock), ClientCertificates(None), web=web)
    async with engine.begin() as connection:
        await callers.register(
            connection,
            client_id="agency",
            name="Agency",
            public_key=key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            rights=["sign"],
            return_urls=["https://agency.example.org/"],
        )
    now = int(clock.now().timestamp())
    claims = {"iss": "agency", "sub": "agency", "aud": "edge", "iat": now, "exp": now + 60, "jti": "12345678"}
    signed = jws.signing_input({"kid": "agency"}, claims)
    assertion = jws.assemble(signed, key.sign(signed, ec.ECDSA(hashes.SHA256())))
    authenticator = ClientAuthenticator(engine, callers, ClientCertificates(None), clock, audience="edge")
    answers = await asyncio.gather(
        *(authenticator.authenticate(assertion, "T1") for _ in range(5)), return_exceptions=True
    )
    [proved] = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert sum(isinstance(answer, CallerRefused) for answer in answers) == 4
    async with engine.connect() as connection:
        stored = await connection.scalar(sa.select(client_grant.c.grant_sha256))
        resolved = await callers.resolve_grant(connection, proved.grant)
    assert stored == hashlib.sha256(proved.grant.encode()).digest()
    assert (resolved.id, resolved.rights, resolved.transaction_id) == ("agency", {Right.SIGN}, "T1")
