"""The attacker program: all databases, the source and a live session with the HSM, while an approval is open.

``attack(place, phase, password)`` tries every way that the source suggests and tells, for each, at which seal it ended.
Without the password no way leads to a key; with it one does, so it is a real attacker; without the HSM even the
password leads nowhere. ``python -m tests.drill.stolen --seed N [--out FILE]`` runs all of it.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import secrets
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from authn.password.stretch import Stretcher, StretchParameters
from authn.sealing import Label, SealBroken, kdf, unseal
from domain import canonical
from domain.clock import to_epoch_seconds
from domain.ids import CredentialId
from hsm.errors import HSMError, HSMRefused
from hsm.keys import MACKey
from hsm.pool import HSMPool
from hsm.token_vault import TokenVault
from hsm.vault import Vault
from signer import tables
from signer.approvals import CHANNEL
from tests.testkit.core import PASSWORD, Played, playing
from tests.testkit.softhsm import core_token

DIGEST = hashlib.sha256(b"what the citizen never saw").digest()


class Phase(StrEnum):
    """How far the approval has come when everything is stolen."""

    BEGUN = "begun"
    COMPLETED = "completed"
    REDEEMED = "redeemed"


class NoHSM:
    """What a thief of databases has in place of the HSM: guesses."""

    async def mac(self, _key: MACKey, *_parts: canonical.Part, version: int | None = None) -> bytes:
        del version
        return secrets.token_bytes(32)

    async def sign(self, *_: object, **__: object) -> list[bytes]:
        raise HSMRefused("there is no HSM")


@dataclass
class Stolen:
    """Rows of every table, by name, and what the thief can ask."""

    rows: dict[str, list[dict[str, Any]]]
    hsm: Any
    source: random.Random
    list_sha256: bytes
    expires: int
    """When the OTP ends, in seconds since 1970."""

    def one(self, table: str) -> dict[str, Any]:
        (row,) = self.rows[table]
        return row

    @property
    def factor(self) -> dict[str, Any]:
        (row,) = (row for row in self.rows["password_factor"] if not row["id"].startswith("decoy"))
        return row

    @property
    def credential(self) -> dict[str, Any]:
        return max(self.rows["credential"], key=lambda row: str(row["created"]))

    def bind(self, cs_sha256: bytes) -> bytes:
        """``bind``, as the source says, from the rows; only the hash of cs may have to be guessed."""
        challenge, request = self.rows["otp_challenge"][-1], self.one("request")
        pending = self.rows["pending_approval"] or self.rows["approval"]
        return canonical.sha256(
            "act1",
            request["id"],
            pending[-1]["credential_id"],
            challenge["citizen_id"],
            request["client_id"],
            self.list_sha256,
            request["pkce_challenge"],
            CHANNEL,
            challenge["generation"],
            challenge["id"],
            self.expires,
            cs_sha256,
        )


def steal(database: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, read from a copy of the files as they lie there."""
    copied = sqlite3.connect(":memory:")
    with sqlite3.connect(database) as taken:
        taken.backup(copied)
    copied.row_factory = sqlite3.Row
    names = [row["name"] for row in copied.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: [dict(row) for row in copied.execute(f'SELECT * FROM "{name}"')] for name in names}  # noqa: S608 - names from the file itself


async def _use(stolen: Stolen, wrapped: bytes) -> bytes:
    """Sign with what is believed to be a wrapped key, and check the signature as anybody would."""
    spki = stolen.credential["spki"]
    (signature,) = await stolen.hsm.sign(wrapped, spki, [DIGEST], kek_version=stolen.credential["kek_version"])
    public_key = load_der_public_key(spki)
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(signature, DIGEST, ec.ECDSA(Prehashed(hashes.SHA256())))
    return bytes(signature)


async def unwrap_what_lies_there(stolen: Stolen) -> bytes:
    """Give every blob of the databases to the HSM as if it were a wrapped key."""
    for rows in stolen.rows.values():
        for blob in (value for row in rows for value in row.values() if isinstance(value, bytes)):
            for candidate in (blob, blob[12:-16], blob[12:]):
                with contextlib.suppress(HSMError, ValueError):
                    return await _use(stolen, candidate)
    raise HSMRefused("none of them unwraps")


async def open_b2(stolen: Stolen, vault_secret: bytes) -> bytes:
    """B2 under a vault secret."""
    row = stolen.credential
    associated = (row["id"], hashlib.sha256(row["spki"]).digest(), row["kek_version"])
    wrapped = unseal(Label.KEY, kdf(Label.KEY, vault_secret, CredentialId(row["id"])), row["sealed_key"], *associated)
    return await _use(stolen, wrapped)


async def open_by_password(stolen: Stolen, password: str) -> bytes:
    """V by a password, the pepper asked from the HSM; then B2."""
    row = stolen.factor
    parameters = StretchParameters(row["time_cost"], row["memory_kib"])
    stretcher = Stretcher(threads=1)
    stretched = await stretcher.stretch(password.encode(), row["salt"], parameters)
    stretcher.close()
    peppered = await stolen.hsm.mac(
        MACKey.PEPPER, "pw", row["id"], row["salt"], stretched, version=row["pepper_version"]
    )
    key = kdf(Label.PASSWORD, stretched, peppered)
    associated = (row["id"], row["pepper_version"], str(parameters))
    return await open_b2(stolen, unseal(Label.PASSWORD, key, row["sealed_vault_secret"], *associated))


async def open_capsule(stolen: Stolen, otp: str, cs: bytes) -> bytes:
    """The capsule of the open challenge."""
    row = stolen.rows["otp_challenge"][-1]
    bind = stolen.bind(hashlib.sha256(cs).digest())
    inner = await stolen.hsm.mac(MACKey.CAPSULE, "otp", row["id"], bind, otp, version=row["capsule_version"])
    return await _use(stolen, unseal(Label.OTP, kdf(Label.OTP, inner, cs), row["capsule"], bind))


async def open_parked(stolen: Stolen, label: Label, secret: bytes) -> bytes:
    """What COMPLETE or REDEEM parked."""
    row = stolen.one("approval")
    bind = stolen.bind(row["cs_sha256"])
    name = "code" if label is Label.CODE else "sad"
    inner = await stolen.hsm.mac(
        MACKey.CAPSULE, name, hashlib.sha256(secret).digest(), bind, version=row["capsule_version"]
    )
    return await _use(stolen, unseal(label, kdf(label, inner, secret), row["parked"], bind))


async def attack(stolen: Stolen, phase: Phase, *, otp: str, password: str | None = None) -> dict[str, str]:
    """Every way, and how it ended: the label of the seal that held, ``no HSM``, or ``signed``.

    The right code is given along, since whoever holds a live session can have the HSM try all million of them; what
    the thief lacks is cs, which is in the browser only.
    """
    source = stolen.source
    ways: dict[str, Callable[[], Awaitable[bytes]]] = {
        "unwrap every blob": lambda: unwrap_what_lies_there(stolen),
        "guess V": lambda: open_b2(stolen, source.randbytes(32)),
        "guess the password": lambda: open_by_password(stolen, f"Clave-{source.randrange(10**6)}"),
    }
    if phase is Phase.BEGUN:
        ways["right code, cs guessed"] = lambda: open_capsule(stolen, otp, source.randbytes(32))
        ways["right code, cs of zeros"] = lambda: open_capsule(stolen, otp, bytes(32))
    else:
        row = stolen.one("approval")
        label = Label.CODE if phase is Phase.COMPLETED else Label.PARKED
        parked = {"guessed": source.randbytes(32), "its stored hash": row["sid"] or row["code_sha256"]}
        for name, secret in parked.items():
            ways[f"{label.value} with {name}"] = lambda secret=secret: open_parked(stolen, label, secret)  # type: ignore[misc]
        ways["stored answer"] = lambda: _open_answer(stolen, source.randbytes(32))
    if password is not None:
        ways["the password"] = lambda: open_by_password(stolen, password)
    return {name: await _end_of(way) for name, way in ways.items()}


async def _open_answer(stolen: Stolen, cs: bytes) -> bytes:
    row = stolen.rows["otp_challenge"][-1]
    code = unseal(Label.ANSWER, kdf(Label.ANSWER, cs, row["id"]), row["answer"], row["id"])
    return await open_parked(stolen, Label.CODE, code)


async def _end_of(way: Callable[[], Awaitable[bytes]]) -> str:
    try:
        await way()
    except SealBroken as broken:
        return f"seal {broken.label}"
    except HSMRefused:
        return "unwrap refused"
    return "signed"


async def everything_stolen(
    folder: Path, vault: Vault, phase: Phase, seed: int, *, certified: bool
) -> tuple[Stolen, str, dict[str, bytes]]:
    """An approval brought to ``phase``, a copy of all there is, the phone's code, and what only others know."""
    async with playing(folder, vault=vault) as played:
        await played.activate(await played.register())
        if certified:
            _, sad = await played.approved()
            await played.sign(sad)
            await _forget_old(played)
        staged = await played.stage()
        begun = await played.begin(staged)
        otp = await played.otp(begun.challenge_id)
        known = {"cs": played.browser.cs}
        if phase is not Phase.BEGUN:
            known["code"] = await played.complete(staged, begun)
            if phase is Phase.REDEEMED:
                known["sad"] = await played.redeem(staged, known["code"])
        rows = steal(folder / "core.db")
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    stolen = Stolen(rows, vault, source, staged.list_sha256(), to_epoch_seconds(begun.expires))
    if not rows["credential"]:
        # Before COMPLETE a newborn key is known by its pending row alone.
        (pending,) = rows["pending_approval"]
        names = {
            "id": "credential_id",
            "sealed_key": "new_sealed_key",
            "spki": "new_spki",
            "kek_version": "kek_version",
        }
        rows["credential"] = [{"created": "", **{to: pending[name] for to, name in names.items()}}]
    return stolen, otp, known


async def _forget_old(played: Played) -> None:
    """Leave only what belongs to the approval under attack, so that each table names it by itself."""
    for table in (tables.authorisation, tables.approval, tables.request):
        await played.execute(table.delete())


async def controls(stolen: Stolen, phase: Phase, *, otp: str, known: dict[str, bytes]) -> dict[str, str]:
    """That the thief's arithmetic is right: each way opens as soon as the one secret that it lacks is given."""
    ways: dict[str, Callable[[], Awaitable[bytes]]] = {}
    match phase:
        case Phase.BEGUN:
            ways["right code and cs"] = lambda: open_capsule(stolen, otp, known["cs"])
        case Phase.COMPLETED:
            ways["the code of the return URL"] = lambda: open_parked(stolen, Label.CODE, known["code"])
            ways["stored answer and cs"] = lambda: _open_answer(stolen, known["cs"])
        case Phase.REDEEMED:
            ways["a live SAD"] = lambda: open_parked(stolen, Label.PARKED, known["sad"])
    return {name: await _end_of(way) for name, way in ways.items()}


async def theft(folder: Path, seed: int, phase: Phase, *, certified: bool) -> dict[str, Any]:
    """One theft, four thieves: live HSM without and with the password, databases alone without and with it."""
    pool = await HSMPool.start(core_token(folder))
    try:
        vault = TokenVault(pool)
        stolen, otp, known = await everything_stolen(folder, vault, phase, seed, certified=certified)
        insider = await attack(stolen, phase, otp=otp)
        with_password = await attack(stolen, phase, otp=otp, password=PASSWORD)
        opened = await controls(stolen, phase, otp=otp, known=known)
        stolen.hsm = NoHSM()
        thief = await attack(stolen, phase, otp=otp, password=PASSWORD)
    finally:
        await pool.close()
    return {
        "controls": opened,
        "insider": insider,
        "insider_with_password": with_password,
        "database_thief_with_password": thief,
        "held": set(opened.values()) == {"signed"}
        and "signed" not in insider.values()
        and with_password["the password"] == "signed"
        and "signed" not in {end for way, end in with_password.items() if way != "the password"}
        and "signed" not in thief.values(),
    }


async def campaign(seed: int) -> dict[str, Any]:
    """Every phase, with a newborn key and with one that is certified."""
    results = {}
    for phase in Phase:
        for certified in (False, True):
            with tempfile.TemporaryDirectory(prefix="rubrica-drill-") as folder:
                name = f"{phase}, {'certified' if certified else 'newborn'} key"
                results[name] = await theft(Path(folder), seed, phase, certified=certified)
    return {"drill": "stolen", "seed": seed, "held": all(result["held"] for result in results.values()), **results}


def main() -> int:
    """Run the campaign; 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.stolen", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, help="a file for the result, besides standard output")
    arguments = parser.parse_args()
    result = asyncio.run(campaign(arguments.seed))
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out is not None:
        arguments.out.write_text(text)
    sys.stdout.write(text)
    return 0 if result["held"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
