import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Log, log_pending
from authn.agencies import (
    WEB,
    Caller,
    CallerRegister,
    ClientState,
    RegisteredKey,
    Right,
    client,
    client_grant,
)
from authn.assertions import ClientAuthenticator, client_assertion
from authn.columns import ColumnCipher
from certs.clients import ClientCertificates
from domain import jws
from domain.errors import AlreadyRegistered, CallerRefused, MalformedRequest, NotFound
from domain.ids import ClientId
from tests.testkit.authn import bytes_on_disk, database
from tests.testkit.time import FrozenClock

AUDIENCE = "https://rubrica.example.org"
RETURN_URL = "https://agency.example.org/signed"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
WEB_CALLER = Caller(id=WEB, name="Rúbrica", rights=frozenset({Right.SIGN}), return_urls=("https://web.example.org/",))


def spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


@dataclass
class Desk:
    """Register and authenticator over one database."""

    engine: AsyncEngine
    columns: ColumnCipher = field(default_factory=lambda: ColumnCipher({1: bytes(32)}))
    clock: FrozenClock = field(default_factory=FrozenClock)

    def __post_init__(self) -> None:
        certificates = ClientCertificates(None)
        self.register = CallerRegister(self.columns, self.clock, Log(self.clock), certificates, web=WEB_CALLER)
        self.authenticator = ClientAuthenticator(
            self.engine, self.register, certificates, self.clock, audience=AUDIENCE
        )

    async def enter(self, **changes: Any) -> Caller:
        values = {
            "client_id": "ayto.avila",
            "name": "Ayuntamiento de Ávila",
            "public_key": spki(KEY.public_key()),
            "rights": ["sign"],
            "return_urls": [RETURN_URL],
            **changes,
        }
        async with self.engine.begin() as connection:
            return await self.register.register(connection, **values)

    async def resolve(self, grant: str) -> Caller:
        async with self.engine.connect() as connection:
            return await self.register.resolve_grant(connection, grant)

    async def count(self, table: sa.Table) -> int:
        async with self.engine.connect() as connection:
            return await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": "ayto.avila",
            "sub": "ayto.avila",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 60,
            "jti": "0123456789abcdef",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}


def assertion(
    claims: dict[str, Any], *, key: ec.EllipticCurvePrivateKey = KEY, header: dict[str, Any] | None = None
) -> str:
    signed = jws.signing_input({"kid": "ayto.avila"} if header is None else header, claims)
    return jws.assemble(signed, key.sign(signed, ec.ECDSA(hashes.SHA256())))


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return ".".join((encode(json.dumps(header).encode()), encode(json.dumps(claims).encode()), encode(signature)))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with database(tmp_path) as engine:
        yield Desk(engine)


async def test_a_client_proves_itself_and_its_grant_names_it(desk: Desk) -> None:
    entered = await desk.enter(rights=["name_citizen", "sign"])
    proved = await desk.authenticator.authenticate(assertion(desk.claims()), "T1")
    assert (proved.id, proved.name) == ("ayto.avila", "Ayuntamiento de Ávila")
    assert proved.rights == entered.rights == {Right.SIGN, Right.NAME_CITIZEN}
    assert proved.return_urls == (RETURN_URL,)
    assert len(base64.urlsafe_b64decode(proved.grant + "=")) == 32
    resolved = await desk.resolve(proved.grant)
    assert (resolved.id, resolved.name, resolved.transaction_id) == ("ayto.avila", "Ayuntamiento de Ávila", "T1")
    assert (resolved.rights, resolved.return_urls) == (proved.rights, proved.return_urls)


async def test_without_a_transaction_there_is_no_grant(desk: Desk) -> None:
    await desk.enter()
    assert (await desk.authenticator.authenticate(assertion(desk.claims()), "")).grant == ""
    assert await desk.count(client_grant) == 0


async def test_without_a_grant_the_citizens_own_web_asks(desk: Desk) -> None:
    assert await desk.resolve("") == WEB_CALLER


@pytest.mark.parametrize("changes", [{"aud": [AUDIENCE]}, {"extra": 1}, {"iat": 0}, {"exp": 300}])
async def test_what_is_accepted_besides(desk: Desk, changes: dict[str, Any]) -> None:
    await desk.enter()
    now = int(desk.clock.now().timestamp())
    moved = {name: now + value if name in {"iat", "exp"} else value for name, value in changes.items()}
    assert (await desk.authenticator.authenticate(assertion(desk.claims(**moved)), "")).id == "ayto.avila"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"iss": "other.agency", "sub": "other.agency"},
        {"iss": None},
        {"iss": 7},
        {"iss": "a\x00b"},
        {"iss": "web", "sub": "web"},
        {"sub": "other"},
        {"sub": None},
        {"aud": "https://elsewhere.example.org"},
        {"aud": [AUDIENCE, "https://elsewhere.example.org"]},
        {"aud": AUDIENCE + "/"},
        {"aud": None},
        {"jti": None},
        {"jti": ""},
        {"jti": "short"},
        {"jti": "x" * 129},
        {"jti": 12345678},
        {"jti": ["0123456789abcdef"]},
    ],
)
async def test_wrong_claims_are_refused(desk: Desk, changes: dict[str, Any]) -> None:
    await desk.enter()
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(assertion(desk.claims(**changes)), "T1")
    assert (await desk.count(client_grant), await desk.count(client_assertion)) == (0, 0)


@pytest.mark.parametrize(
    ("issued", "expires"),
    [
        (-120, -60),
        (-60, 0),
        (0, 301),
        (31, 60),
        (60, 30),
        (0, 0),
        (-400, 10),
        (None, 60),
        (0, None),
        (True, True),
        (0.5, 60.5),
        ("0", "60"),
    ],
)
async def test_wrong_times_are_refused(desk: Desk, issued: Any, expires: Any) -> None:
    await desk.enter()
    now = int(desk.clock.now().timestamp())
    iat, exp = (now + value if type(value) in {int, float} else value for value in (issued, expires))
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(assertion(desk.claims(iat=iat, exp=exp)), "T1")


async def test_an_assertion_is_good_once(desk: Desk) -> None:
    await desk.enter()
    once = assertion(desk.claims())
    answers = await asyncio.gather(
        *(desk.authenticator.authenticate(once, "T1") for _ in range(20)), return_exceptions=True
    )
    assert sorted(isinstance(answer, CallerRefused) for answer in answers) == [False] + [True] * 19
    assert await desk.count(client_grant) == 1
    # The same jti in another assertion is a second use too.
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(assertion(desk.claims(exp=desk.claims()["exp"] + 1)), "T1")


async def test_a_jti_is_each_clients_own(desk: Desk) -> None:
    await desk.enter()
    await desk.enter(client_id="other", public_key=spki(OTHER_KEY.public_key()))
    await desk.authenticator.authenticate(assertion(desk.claims()), "")
    theirs = assertion(desk.claims(iss="other", sub="other"), key=OTHER_KEY, header={"kid": "other"})
    assert (await desk.authenticator.authenticate(theirs, "")).id == "other"


async def test_used_assertions_are_forgotten_when_they_are_over(desk: Desk) -> None:
    await desk.enter()
    old = assertion(desk.claims())
    await desk.authenticator.authenticate(old, "")
    desk.clock.advance(60)
    await desk.authenticator.authenticate(assertion(desk.claims(jti="fedcba9876543210")), "")
    assert await desk.count(client_assertion) == 1
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(old, "")


async def test_another_key_is_refused(desk: Desk) -> None:
    await desk.enter()
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(assertion(desk.claims(), key=OTHER_KEY), "T1")


async def test_an_unknown_client_is_refused_as_a_known_one_with_the_wrong_key(desk: Desk) -> None:
    await desk.enter()
    refusals = []
    for name in ("ayto.avila", "ayto.nowhere"):
        with pytest.raises(CallerRefused) as refusal:
            await desk.authenticator.authenticate(
                assertion(desk.claims(iss=name, sub=name), key=OTHER_KEY, header={"kid": name}), "T1"
            )
        refusals.append((type(refusal.value), refusal.value.public_detail))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"kid": "other"},
        {"kid": "ayto.avila", "crit": ["b64"], "b64": False},
        {"kid": "ayto.avila", "jwk": {}},
        {"kid": "ayto.avila", "jku": "https://evil.example.org"},
    ],
)
async def test_a_header_that_means_more_is_refused(desk: Desk, header: dict[str, Any]) -> None:
    await desk.enter()
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(assertion(desk.claims(), header=header), "T1")


async def test_algorithms_cannot_be_confused(desk: Desk) -> None:
    await desk.enter()
    claims = desk.claims()
    good = assertion(claims)
    forged = [unsigned({"alg": alg, "kid": "ayto.avila"}, claims) for alg in ("none", "None", "ES256", "HS256")]
    # The public key as an HMAC secret.
    signed = unsigned({"alg": "HS256", "kid": "ayto.avila"}, claims).rpartition(".")[0]
    for secret in (spki(KEY.public_key()), b""):
        authenticator = hmac.HMAC(secret, hashes.SHA256())
        authenticator.update(signed.encode())
        forged.append(signed + "." + base64.urlsafe_b64encode(authenticator.finalize()).rstrip(b"=").decode())
    # A zero signature (CVE-2022-21449), a cut one, a DER one.
    forged.append(unsigned({"alg": "ES256", "kid": "ayto.avila"}, claims, bytes(64)))
    forged.append(good[:-4])
    der = KEY.sign(good.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256()))
    forged.append(unsigned({"alg": "ES256", "kid": "ayto.avila"}, claims, der))
    # The right signature over other claims.
    forged.append(unsigned({"alg": "ES256", "kid": "ayto.avila"}, {**claims, "x": 1}).rpartition(".")[0] + good[-87:])
    for token in forged:
        with pytest.raises(CallerRefused):
            await desk.authenticator.authenticate(token, "T1")
    assert (await desk.authenticator.authenticate(good, "")).id == "ayto.avila"


@pytest.mark.parametrize(
    "junk",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é.é.é",
        "W10.W10.",
        "x" * 5000,
        base64.urlsafe_b64encode(b"[" * 2500).decode() + "." + base64.urlsafe_b64encode(b"[" * 300).decode() + ".AA",
        "e30." + base64.urlsafe_b64encode(b"[" * 2700).decode() + ".AA",
    ],
)
async def test_junk_is_refused(desk: Desk, junk: str) -> None:
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(junk, "T1")


@pytest.mark.parametrize("transaction", ["x" * 129, "a b", "é", "\x00"])
async def test_a_transaction_id_has_limits(desk: Desk, transaction: str) -> None:
    await desk.enter()
    with pytest.raises(MalformedRequest):
        await desk.authenticator.authenticate(assertion(desk.claims()), transaction)


async def test_a_blocked_client_and_its_grants_are_refused(desk: Desk) -> None:
    await desk.enter()
    grant = (await desk.authenticator.authenticate(assertion(desk.claims()), "T1")).grant
    async with desk.engine.begin() as connection:
        await desk.register.set_state(connection, ClientId("ayto.avila"), ClientState.BLOCKED)
    with pytest.raises(CallerRefused):
        await desk.authenticator.authenticate(assertion(desk.claims(jti="fedcba9876543210")), "T1")
    with pytest.raises(CallerRefused):
        await desk.resolve(grant)
    async with desk.engine.begin() as connection:
        await desk.register.set_state(connection, ClientId("ayto.avila"), ClientState.ACTIVE)
    assert (await desk.resolve(grant)).id == "ayto.avila"
    async with desk.engine.begin() as connection:
        with pytest.raises(NotFound):
            await desk.register.set_state(connection, ClientId("nobody"), ClientState.BLOCKED)


async def test_the_operator_sees_every_client(desk: Desk) -> None:
    await desk.enter(client_id="sede.b")
    await desk.enter(client_id="sede.a", rights=["name_citizen", "sign"])
    async with desk.engine.begin() as connection:
        await desk.register.set_state(connection, ClientId("sede.b"), ClientState.BLOCKED)
        listed = await desk.register.all(connection)
    assert [(each.caller.id, each.state) for each in listed] == [
        ("sede.a", ClientState.ACTIVE),
        ("sede.b", ClientState.BLOCKED),
    ]
    assert listed[0].caller.rights == {Right.SIGN, Right.NAME_CITIZEN}
    assert listed[0].credential == RegisteredKey(KEY.public_key())
    async with desk.engine.begin() as connection:
        await connection.execute(sa.update(client).where(client.c.id == "sede.b").values(state="ACTIVE"))
        with pytest.raises(InvalidTag):
            await desk.register.all(connection)


async def test_a_grant_is_over_after_a_day(desk: Desk) -> None:
    await desk.enter()
    grant = (await desk.authenticator.authenticate(assertion(desk.claims()), "T1")).grant
    desk.clock.advance(timedelta(hours=24).total_seconds() - 1)
    await desk.resolve(grant)
    desk.clock.advance(1)
    with pytest.raises(CallerRefused):
        await desk.resolve(grant)
    await desk.authenticator.authenticate(assertion(desk.claims(jti="fedcba9876543210")), "T2")
    assert await desk.count(client_grant) == 1


@pytest.mark.parametrize("grant", ["A" * 43, "x", "é\ud800".encode(errors="replace").decode()])
async def test_an_unknown_grant_is_refused(desk: Desk, grant: str) -> None:
    with pytest.raises(CallerRefused):
        await desk.resolve(grant)


async def test_a_grant_lies_in_the_database_as_a_hash_only(desk: Desk, tmp_path: Path) -> None:
    await desk.enter()
    grant = (await desk.authenticator.authenticate(assertion(desk.claims()), "T1")).grant
    await desk.engine.dispose()
    stored = bytes_on_disk(tmp_path)
    assert b"ayto.avila" in stored, "the canary would be looked for in the wrong place"
    assert grant.encode() not in stored
    assert base64.urlsafe_b64decode(grant + "=") not in stored


async def test_reprs_hide_the_grant(desk: Desk) -> None:
    await desk.enter()
    proved = await desk.authenticator.authenticate(assertion(desk.claims()), "T1")
    assert proved.grant not in repr(proved)


@pytest.mark.parametrize(
    ("table", "column", "forged"),
    [
        (client, "name", "Ministerio"),
        (client, "public_key", spki(OTHER_KEY.public_key())),
        (client, "rights", ["name_citizen", "sign"]),
        (client, "return_urls", ["https://evil.example.org/"]),
        (client, "state", "ACTIVE "),
        (client_grant, "client", "other"),
        (client_grant, "transaction_id", "T2"),
        (client_grant, "expires", FrozenClock().now() + timedelta(days=300)),
    ],
    # The key differs from run to run, and a test's name must not.
    ids=["name", "key", "rights", "addresses", "state", "client", "transaction", "end"],
)
async def test_a_row_edited_in_the_database_is_refused(desk: Desk, table: sa.Table, column: str, forged: Any) -> None:
    await desk.enter()
    await desk.enter(client_id="other")
    grant = (await desk.authenticator.authenticate(assertion(desk.claims()), "T1")).grant
    async with desk.engine.begin() as connection:
        await connection.execute(sa.update(table).values({column: forged}))
    with pytest.raises(InvalidTag):
        await desk.resolve(grant)


async def test_registering_is_logged_without_its_texts(desk: Desk) -> None:
    await desk.enter()
    async with desk.engine.connect() as connection:
        leaf = cbor2.loads(await connection.scalar(sa.select(log_pending.c.leaf)))
    assert leaf["tag"] == "ADMIN"
    assert leaf["facts"]["client"] == "ayto.avila"
    assert leaf["facts"]["rights"] == "sign"
    assert len(leaf["facts"]["key_sha256"]) == 32


async def test_a_client_id_is_taken_once(desk: Desk) -> None:
    await desk.enter()
    with pytest.raises(AlreadyRegistered):
        await desk.enter(public_key=spki(OTHER_KEY.public_key()))
    await desk.authenticator.authenticate(assertion(desk.claims()), "T1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "web"},
        {"client_id": ""},
        {"client_id": "Ávila"},
        {"client_id": "x" * 65},
        {"name": ""},
        {"name": "   "},
        {"name": "a\nb"},
        {"name": "x" * 81},
        {"public_key": b""},
        {"public_key": b"junk"},
        {"public_key": spki(ec.generate_private_key(ec.SECP384R1()).public_key())},
        {"public_key": spki(rsa.generate_private_key(65537, 2048).public_key())},
        {"public_key": spki(ed25519.Ed25519PrivateKey.generate().public_key())},
        {"rights": ["sign", "everything"]},
        {"return_urls": []},
        {"return_urls": ["http://agency.example.org/"]},
        {"return_urls": ["http://localhost:8000/"]},
        {"return_urls": ["javascript:alert(1)"]},
        {"return_urls": ["/relative"]},
        {"return_urls": ["https://"]},
        {"return_urls": ["https://a.example/?x=1"]},
        {"return_urls": ["https://a.example/?"]},
        {"return_urls": ["https://a.example/#x"]},
        {"return_urls": ["https://user@a.example/"]},
        {"return_urls": ["https://a.example\\@b.example/"]},
        {"return_urls": ["https://a.example:99999/"]},
        {"return_urls": ["https://a.example/\r\nSet-Cookie: x"]},
        {"return_urls": [RETURN_URL, "https://á.example/"]},
    ],
)
async def test_a_wrong_entry_is_refused(desk: Desk, wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest):
        await desk.enter(**wrong)
    assert (await desk.count(client), await desk.count(log_pending)) == (0, 0)


async def test_plain_http_on_loopback_is_for_development(desk: Desk) -> None:
    desk.register = CallerRegister(
        desk.columns, desk.clock, Log(desk.clock), ClientCertificates(None), web=WEB_CALLER, plain_http=True
    )
    entered = await desk.enter(return_urls=["http://127.0.0.1:8000/back"])
    assert entered.return_urls == ("http://127.0.0.1:8000/back",)
    with pytest.raises(MalformedRequest):
        await desk.enter(client_id="other", return_urls=["http://agency.example.org/"])
