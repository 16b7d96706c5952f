import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from authn.columns import ColumnCipher, data_key
from hsm.errors import HSMRefused
from hsm.keys import SealingKey
from tests.testkit.authn import database
from tests.testkit.vault import AllAtOnce, FakeVault

KEY = bytes(range(32))


@given(st.text(), st.lists(st.text(max_size=5), max_size=4))
def test_what_was_sealed_opens_at_its_place(value: str, context: list[str]) -> None:
    cipher = ColumnCipher({1: KEY})
    try:
        value.encode()
        "".join(context).encode()
    except UnicodeEncodeError:
        return
    assert cipher.open(cipher.seal(value, *context), *context) == value


@pytest.mark.parametrize(
    "elsewhere",
    [("citizen", "phone", "B"), ("citizen", "email", "A"), ("citizen", "phone"), ("citizen", "phoneA", ""), ()],
)
def test_a_moved_value_does_not_open(elsewhere: tuple[str, ...]) -> None:
    cipher = ColumnCipher({1: KEY})
    sealed = cipher.seal("+34612345678", "citizen", "phone", "A")
    with pytest.raises(InvalidTag):
        cipher.open(sealed, *elsewhere)


@given(st.integers(min_value=0))
def test_a_changed_bit_does_not_open(place: int) -> None:
    cipher = ColumnCipher({1: KEY, 3: KEY})
    sealed = bytearray(cipher.seal("value", "a"))
    sealed[place // 8 % len(sealed)] ^= 1 << place % 8
    with pytest.raises(InvalidTag):
        cipher.open(bytes(sealed), "a")


@pytest.mark.parametrize("length", range(16))
def test_a_value_cut_short_does_not_open(length: int) -> None:
    cipher = ColumnCipher({1: KEY})
    with pytest.raises(InvalidTag):
        cipher.open(cipher.seal("", "a")[:length], "a")


def test_equal_values_look_different() -> None:
    cipher = ColumnCipher({1: KEY})
    assert len({cipher.seal("same", "a") for _ in range(100)}) == 100


def test_the_newest_key_seals_and_older_ones_still_open() -> None:
    old = ColumnCipher({1: KEY})
    both = ColumnCipher({1: KEY, 2: bytes(32)})
    assert both.open(old.seal("value", "a"), "a") == "value"
    with pytest.raises(InvalidTag):
        old.open(both.seal("value", "a"), "a")


def test_a_guard_speaks_for_its_facts_only() -> None:
    cipher = ColumnCipher({1: KEY})
    guard = cipher.guard("client", "ACTIVE")
    cipher.check(guard, "client", "ACTIVE")
    for facts in [("client", "BLOCKED"), ("client",), ("clientACTIVE",), ()]:
        with pytest.raises(InvalidTag):
            cipher.check(guard, *facts)


def test_a_sealed_empty_text_is_no_guard() -> None:
    cipher = ColumnCipher({1: KEY})
    with pytest.raises(InvalidTag):
        cipher.check(cipher.seal("", "client", "ACTIVE"), "client", "ACTIVE")


def test_its_repr_hides_the_key() -> None:
    assert repr(ColumnCipher({1: KEY})) == "ColumnCipher(data_keys=[1])"


async def test_the_key_outlives_the_process_and_lies_sealed(tmp_path: Path) -> None:
    vault = FakeVault()
    async with database(tmp_path) as engine:
        sealed = (await ColumnCipher.load(engine, vault)).seal("value", "a")
    async with database(tmp_path) as engine:
        again = await ColumnCipher.load(engine, vault)
        async with engine.connect() as connection:
            row = (await connection.execute(sa.select(data_key))).one()
    assert again.open(sealed, "a") == "value"
    assert vault.calls == {"random": 1, "seal": 1, "open": 2}
    assert (row.id, row.version, len(row.sealed)) == (1, 1, 12 + 32 + 16)


async def test_cores_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    vault = AllAtOnce(8)
    async with database(tmp_path) as one, database(tmp_path) as other, asyncio.timeout(30):
        ciphers = await asyncio.gather(*(ColumnCipher.load(engine, vault) for engine in (one, other) for _ in range(4)))
        async with one.connect() as connection:
            keys = await connection.scalar(sa.select(sa.func.count()).select_from(data_key))
    assert keys == 1
    sealed = ciphers[0].seal("value", "a")
    assert [cipher.open(sealed, "a") for cipher in ciphers] == ["value"] * 8


async def test_the_key_opens_after_the_token_has_a_newer_one(tmp_path: Path) -> None:
    vault = FakeVault()
    async with database(tmp_path) as engine:
        sealed = (await ColumnCipher.load(engine, vault)).seal("value", "a")
        vault.rotate(SealingKey.COLUMNS)
        assert (await ColumnCipher.load(engine, vault)).open(sealed, "a") == "value"


async def test_a_data_key_that_was_swapped_is_refused(tmp_path: Path) -> None:
    vault = FakeVault()
    async with database(tmp_path) as engine:
        await ColumnCipher.load(engine, vault)
        async with engine.begin() as connection:
            await connection.execute(sa.update(data_key).values(id=2))
        with pytest.raises(HSMRefused):
            await ColumnCipher.load(engine, vault)
