"""Signatures a second through the worker pool, next to a bare python-pkcs11 loop and to ``openssl speed``.

Every signature of the pool is verified before it is released; the peers verify nothing.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from domain.algorithms import KeyType
from hsm.keys import WrappingKey
from hsm.pool import HSMPool
from hsm.settings import TokenSettings
from hsm.token_vault import TokenVault
from tests.testkit.softhsm import core_token

SECONDS = 2.0
DIGEST = b"\x5a" * 32
BATCH = 100
CALLERS = 16

BARE_LOOP = f"""
import sys, time
import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.constants import DEFAULT
from pkcs11.util.ec import encode_named_curve_parameters

module, label, pin, kind, batch = sys.argv[1:]
session = pkcs11.lib(module).get_token(token_label=label).open(user_pin=pin)
kek = session.generate_key(KeyType.AES, 256, store=False)
newborn = {{Attribute.EXTRACTABLE: True}}
if kind == "P-256":
    curve = encode_named_curve_parameters("secp256r1")
    parameters = session.create_domain_parameters(KeyType.EC, {{Attribute.EC_PARAMS: curve}}, local=True)
    private = parameters.generate_keypair(store=False, private_template=newborn)[1]
    key_type, mechanism, data = KeyType.EC, Mechanism.ECDSA, {DIGEST!r}
else:
    private = session.generate_keypair(KeyType.RSA, 3072, store=False, private_template=newborn)[1]
    key_type, mechanism, data = KeyType.RSA, Mechanism.RSA_PKCS, bytes(19) + {DIGEST!r}
wrapped = kek.wrap_key(private, mechanism=Mechanism.AES_KEY_WRAP_PAD)
template = dict.fromkeys((Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT)
template |= {{Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.SIGN: True}}
made, began = 0, time.perf_counter()
while time.perf_counter() - began < {SECONDS}:
    way = {{"mechanism": Mechanism.AES_KEY_WRAP_PAD, "template": template}}
    key = kek.unwrap_key(ObjectClass.PRIVATE_KEY, key_type, wrapped, **way)
    for _ in range(int(batch)):
        key.sign(data, mechanism=mechanism)
        made += 1
    key.destroy()
print(made / (time.perf_counter() - began))
"""


def run() -> list[dict[str, Any]]:
    """Both ways of signing with both key types."""
    with tempfile.TemporaryDirectory(prefix="rubrica-bench-") as folder:
        settings = core_token(Path(folder))
        workers = len(os.sched_getaffinity(0))
        raw = openssl()
        rows = []
        for key_type in KeyType:
            for batch in (1, BATCH):
                bare = bare_loop(settings, key_type, batch)
                what = "unwrap + sign + destroy" if batch == 1 else f"unwrap once + sign {batch}"
                for count in sorted({1, workers}):
                    name = f"{key_type}: {what}, pool of {count}"
                    value = asyncio.run(through_pool(settings, key_type, batch, count))
                    rows.append(row(name, value, "bare python-pkcs11 loop, 1 process", bare))
                rows.append(row(name, value, "openssl speed, 1 process, key in memory", raw[key_type]))
    return rows


def row(name: str, value: float, peer: str, peer_value: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 1),
        "unit": "signatures/s",
        "peer": peer,
        "peer_value": round(peer_value, 1),
        "ratio": round(value / peer_value, 3),
    }


async def through_pool(settings: TokenSettings, key_type: KeyType, batch: int, workers: int) -> float:
    """Sixteen callers keep the pool busy."""
    pool = await HSMPool.start(settings, workers=workers)
    try:
        vault = TokenVault(pool)
        pair = await vault.generate(WrappingKey.CITIZEN, key_type)
        digests = [DIGEST] * batch
        await vault.sign(pair.wrapped, pair.spki, digests, kek_version=1)
        began = time.perf_counter()

        async def caller() -> int:
            made = 0
            while time.perf_counter() - began < SECONDS:
                signatures = await vault.sign(pair.wrapped, pair.spki, digests, kek_version=1, deadline_seconds=60)
                made += len(signatures)
            return made

        made = await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return sum(made) / (time.perf_counter() - began)
    finally:
        await pool.close()


def bare_loop(settings: TokenSettings, key_type: KeyType, batch: int) -> float:
    """The same work by python-pkcs11 alone: no pool, no audit, no verification."""
    pin = settings.pin_file.read_text()
    command = [sys.executable, "-c", BARE_LOOP, str(settings.module), settings.token_label, pin, key_type, str(batch)]
    answer = subprocess.run(
        command, env=settings.child_environment(), capture_output=True, text=True, check=True, timeout=60
    )
    return float(answer.stdout)


def openssl() -> dict[KeyType, float]:
    """What the processor can do with the key in memory."""
    answer = subprocess.run(
        ["openssl", "speed", "-mr", "-elapsed", "-seconds", str(round(SECONDS)), "ecdsap256", "rsa3072"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rates = {}
    for line in answer.stdout.splitlines():
        kind, *fields = line.split(":")
        if kind == "+F2":
            rates[KeyType.RSA3072] = float(fields[2])
        elif kind == "+F4":
            rates[KeyType.P256] = float(fields[2])
    return rates
