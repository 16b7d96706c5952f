"""What every vault must do: the one in memory, which unit tests use, and the one over a real token."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from domain.algorithms import KeyType
from hsm.errors import HSMRefused
from hsm.keys import KeyPair, MACKey, SealingKey, SigningKey, WrappingKey
from hsm.pool import HSMPool
from hsm.token_vault import TokenVault
from hsm.vault import Vault
from tests.testkit.softhsm import core_token
from tests.testkit.vault import FakeVault

DIGEST = hashlib.sha256(b"a document").digest()
SHA256 = Prehashed(hashes.SHA256())


@pytest.fixture(params=["memory", "token"])
async def vault(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Vault]:
    if request.param == "memory":
        yield FakeVault()
        return
    pool = await HSMPool.start(core_token(tmp_path), workers=1)
    yield TokenVault(pool)
    await pool.close()


def flipped(data: bytes, place: int = -1) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


async def test_macs_depend_on_key_and_parts_alone(vault: Vault) -> None:
    first = await vault.mac(MACKey.INDEX, "nif", "12345678Z")
    assert len(first) == 32
    assert await vault.mac(MACKey.INDEX, "nif", "12345678Z", version=1) == first
    others = [
        await vault.mac(MACKey.PEPPER, "nif", "12345678Z"),
        await vault.mac(MACKey.INDEX, "nif1", "2345678Z"),
        await vault.mac(MACKey.INDEX, "nif", "12345678Z", None),
    ]
    assert len({first, *others}) == 4


@pytest.mark.parametrize(("key_type", "size"), [(KeyType.P256, 80), (KeyType.RSA3072, 1808)])
async def test_a_newborn_key_is_wrapped_and_signs(vault: Vault, key_type: KeyType, size: int) -> None:
    pair = await vault.generate(WrappingKey.CITIZEN, key_type)
    assert len(pair.wrapped) == size
    second = hashlib.sha256(b"another").digest()
    signatures = await vault.sign(pair.wrapped, pair.spki, [DIGEST, second], kek_version=1)
    public = serialization.load_der_public_key(pair.spki)
    for digest, signature in zip([DIGEST, second], signatures, strict=True):
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, digest, padding.PKCS1v15(), SHA256)
        else:
            assert isinstance(public, ec.EllipticCurvePublicKey)
            public.verify(signature, digest, ec.ECDSA(SHA256))


async def test_a_changed_blob_and_another_kek_are_refused(vault: Vault) -> None:
    pair = await vault.generate(WrappingKey.CITIZEN, KeyType.P256)
    foreign = await vault.generate(WrappingKey.SAP, KeyType.P256)
    for forged in (KeyPair(wrapped=flipped(pair.wrapped), spki=pair.spki), foreign):
        with pytest.raises(HSMRefused):
            await vault.sign(forged.wrapped, forged.spki, [DIGEST], kek_version=1)


async def test_both_sides_agree_on_a_secret(vault: Vault) -> None:
    pair = await vault.generate(WrappingKey.SAP, KeyType.P256)
    peer = ec.generate_private_key(ec.SECP256R1())
    point = peer.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    public = serialization.load_der_public_key(pair.spki)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert await vault.agree(pair.wrapped, point, kek_version=1) == peer.exchange(ec.ECDH(), public)
    for wrong in (flipped(point), point[:-1], point[:33], b"", b"\x00" * 65):
        with pytest.raises(ValueError, match=r"."):
            await vault.agree(pair.wrapped, wrong, kek_version=1)


async def test_what_was_sealed_opens_with_its_context_alone(vault: Vault) -> None:
    sealed = await vault.seal(b"data key", b"context")
    assert len(sealed) == 12 + 8 + 16
    version = vault.current_version(SealingKey.COLUMNS)
    assert await vault.open(sealed, b"context", version=version) == b"data key"
    for forged, context in ((flipped(sealed), b"context"), (flipped(sealed, 0), b"context"), (sealed, b"other")):
        with pytest.raises(HSMRefused):
            await vault.open(forged, context, version=version)


async def test_a_key_of_the_token_signs(vault: Vault) -> None:
    public = serialization.load_der_public_key(await vault.public_key(SigningKey.TOKENS))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(await vault.sign_with(SigningKey.TOKENS, DIGEST), DIGEST, ec.ECDSA(SHA256))


async def test_random_bytes_are_as_many_as_asked_for(vault: Vault) -> None:
    first, second = await vault.random(32), await vault.random(32)
    assert len(first) == len(second) == 32
    assert first != second
