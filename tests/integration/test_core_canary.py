"""Recognisable secrets through every flow and error path of the real core, at debug level; then everything is searched.

The SMS network keeps its messages in memory, so nothing that is found here was put there by the phone.
"""

import base64
import contextlib
import re
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from authn.client import CoreFault
from authn.envelope import EnvelopePurpose
from domain.errors import RubricaError
from tests.testkit.callers import Callers
from tests.testkit.core_process import CoreProcess, core_process

FIRST, SECOND, WRONG = "Canario-Primero-71", "Canario-Segundo-82", "Canario-Errado-93"
NIF = "87654321X"
PHONE, NEW_PHONE = "+34698765432", "+34687654329"
CERTIFICATE_COLUMNS = {"credential": ("certificate", "chain", "csr"), "authorisation": ("to_be_signed",)}
"""What is public or about to be: it names the holder, as EN 319 412-2 wants."""


def forms(secret: bytes) -> Iterator[bytes]:
    """How a secret may lie somewhere: raw, hexadecimal, printed, base64 and base64url (three alignments)."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield repr(secret)[2:-1].encode()
    for shift in range(3):
        start = (8 * shift + 5) // 6
        end = (8 * (shift + len(secret))) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(shift) + secret)[start:end]


def found_in(content: bytes, secret: bytes) -> bool:
    """Whether any form occurs; digits only where no further digit follows, as a time's fraction might hold them."""
    if secret.isdigit():
        return any(
            re.search(rb"(?<![0-9A-Za-z])" + re.escape(form) + rb"(?![0-9A-Za-z])", content) for form in forms(secret)
        )
    return any(form in content for form in forms(secret))


@pytest.mark.parametrize(
    "disguise",
    [
        lambda secret: secret,
        lambda secret: secret.hex().encode(),
        lambda secret: secret.hex().upper().encode(),
        lambda secret: repr(secret).encode(),
        lambda secret: base64.b64encode(b"x" + secret + b"yz"),
        lambda secret: base64.b64encode(b"xy" + secret),
        lambda secret: base64.urlsafe_b64encode(b"xyz" + secret + b"~~~"),
    ],
    ids=["raw", "hex", "HEX", "printed", "base64 +1", "base64 +2", "base64url"],
)
@pytest.mark.parametrize("secret", [FIRST.encode(), bytes(range(200, 232)), PHONE.encode()])
def test_the_search_finds_a_planted_secret(disguise, secret):
    assert found_in(b"before " + disguise(secret) + b" after", secret)
    assert not found_in(b"before " + disguise(secret[::-1]) + b" after", secret)


@pytest.mark.parametrize("line", [b"code 246810.", b"#246810", b"{'otp': '246810'}", b"x 323436383130 y"])
def test_the_search_finds_a_planted_code(line):
    assert found_in(line, b"246810")
    assert not found_in(b"12:00:00.1246810Z", b"246810")


class Planted:
    """Every secret of the run, by the name under which a find would be reported."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {
            "password": FIRST.encode(),
            "second password": SECOND.encode(),
            "wrong password": WRONG.encode(),
            "phone": PHONE.encode(),
            "new phone": NEW_PHONE.encode(),
            "phone without prefix": PHONE[3:].encode(),
            "e-mail": b"maria@example.org",
        }
        self.personal = {
            "nif": NIF.encode(),
            "given name": "María".encode(),
            "surname": "Núñez".encode(),
            "second surname": "Ibáñez".encode(),
        }

    def add(self, name: str, value: bytes | str) -> None:
        self.secrets[f"{name} {len(self.secrets)}"] = value.encode() if isinstance(value, str) else value


async def refused(attempt):
    """Await what must fail."""
    with pytest.raises((RubricaError, CoreFault)):
        await attempt


async def sign_one(callers: Callers, planted: Planted, password: str) -> None:
    staged = await callers.stage(2)
    begun = await callers.begin(staged, password, nif=NIF)
    code = await callers.complete(staged, begun.challenge_id)
    r = secrets.token_bytes(32)
    sad = await callers.redeem(staged, code, r)
    for name, value in (("code", code), ("r", r), ("SAD", sad), ("cs", callers.browser.cs)):
        planted.add(name, value)
    await callers.sign(sad, (0, 1, 2))
    # A thief's second redemption, another SAD, and the same SAD for something else.
    await refused(callers.redeem(staged, code, secrets.token_bytes(32)))
    await refused(callers.sign(secrets.token_bytes(32), (1,)))
    await refused(callers.sign(sad, (9,)))


async def every_flow(core: CoreProcess, callers: Callers, planted: Planted) -> None:
    activation_code = await callers.register(nif=NIF, phone=PHONE)
    planted.add("activation code", activation_code)
    planted.add("activation code", activation_code.replace("-", ""))
    await refused(callers.register(nif=NIF, phone=PHONE))
    envelope = await callers.seal("0000-0000-0000-0000", EnvelopePurpose.ACTIVATION_BEGIN, subject=NIF)
    await callers.factors.activation_begin(NIF, "maria@example.org", envelope)
    await refused(callers.activate(activation_code, nif=NIF, password="corta"))
    await callers.activate(activation_code, nif=NIF, password=FIRST)
    await sign_one(callers, planted, FIRST)
    staged = await callers.stage()
    await refused(callers.complete(staged, (await callers.begin(staged, WRONG, nif=NIF)).challenge_id, "000000"))
    begun = await callers.begin(staged, FIRST, nif=NIF)
    for _ in range(4):
        await refused(callers.complete(staged, begun.challenge_id, "000001"))
    # Sealed for something else, and no envelope at all.
    other = await callers.seal(FIRST, EnvelopePurpose.PASSWORD_CHANGE_BEGIN, subject=NIF)
    await refused(callers.gate.begin(staged.id, NIF, other))
    await refused(callers.gate.begin(FIRST, NIF, other))
    await refused(callers.gate.complete(FIRST, other))
    await refused(callers.change_password(FIRST, FIRST, nif=NIF))
    await callers.change_password(FIRST, SECOND, nif=NIF)
    with faulted(core.database):
        staged = await callers.stage()
        begun = await callers.begin(staged, SECOND, nif=NIF)
        await refused(callers.complete(staged, begun.challenge_id))
    await sign_one(callers, planted, SECOND)
    await callers.registry.change_phone(NIF, NEW_PHONE)
    await refused(callers.registry.change_phone(NIF, NEW_PHONE))
    await refused(callers.registry.change_phone(NIF, "600"))
    await callers.credentials.revoke(NIF, "keyCompromise")
    await sign_one(callers, planted, SECOND)


@contextlib.contextmanager
def faulted(database: Path) -> Iterator[None]:
    """A database that fails in the middle of step 12: an error that nobody foresaw."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        connection.execute(
            "CREATE TRIGGER fault BEFORE INSERT ON authorisation BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        yield
        connection.execute("DROP TRIGGER fault")


def files(core: CoreProcess) -> dict[str, bytes]:
    """Everything that lies in the folder, WAL and logs and the PKI's store included; of the PIN files nothing."""
    return {
        str(path.relative_to(core.folder)): path.read_bytes()
        for path in sorted(core.folder.rglob("*"))
        if path.is_file() and path.name != "pin"
    }


def database_without_certificates(core: CoreProcess) -> bytes:
    """All values of all tables but those that hold certificates."""
    parts: list[bytes] = []
    with contextlib.closing(sqlite3.connect(core.database)) as connection:
        connection.row_factory = sqlite3.Row
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - names from the file
                for column in row.keys():  # noqa: SIM118 - a row is no mapping
                    if column not in CERTIFICATE_COLUMNS.get(name, ()):
                        value = row[column]
                        parts.append(value if isinstance(value, bytes) else str(value).encode())
    return b"\0".join(parts)


async def test_no_secret_lies_anywhere(tmp_path: Path) -> None:
    planted = Planted()
    with core_process(tmp_path, log_level="debug") as core:
        async with core.running() as callers:
            await every_flow(core, callers, planted)
            # Once while it runs, WAL and all; killed, it can tidy nothing up.
            alive = files(core)
            core.kill()
        dead = files(core)
        for code in core.sms.codes():
            planted.add("OTP", code)
        for pin in core.folder.rglob("pin"):
            planted.add("PIN", pin.read_text().strip())
        stored = database_without_certificates(core)
    assert b"bug" in alive["core.log"]
    assert {"core.db", "core.db-wal", "core.log"} <= set(alive)
    assert len(core.sms.codes()) >= 8
    finds = [
        f"{name} in {place}"
        for contents in (alive, dead)
        for place, content in contents.items()
        for name, secret in planted.secrets.items()
        if found_in(content, secret)
    ]
    logs = {place: content for place, content in dead.items() if place.endswith(".log")}
    finds += [
        f"{name} in {place}"
        for place, content in {**logs, "the tables": stored}.items()
        for name, value in planted.personal.items()
        if found_in(content, value)
    ]
    assert finds == []
