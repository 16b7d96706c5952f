"""A token is used only if every key is there, every attribute is right, and nothing else is on it."""

from pathlib import Path

import pytest

from domain.algorithms import KeyType
from hsm.ceremony import TokenState, status
from hsm.errors import InventoryMismatch
from hsm.keys import WRAPPED_BYTES, Inventory
from hsm.pool import HSMPool
from hsm.settings import TokenSettings
from tests.testkit.softhsm import core_token, pki_token
from tests.testkit.token_acts import act, start


@pytest.fixture
def settings(tmp_path: Path) -> TokenSettings:
    return core_token(tmp_path)


async def refusal(settings: TokenSettings) -> str:
    with pytest.raises(InventoryMismatch) as refused:
        await HSMPool.start(settings, workers=1)
    return str(refused.value)


def test_honest_tokens_are_complete(settings: TokenSettings, tmp_path: Path) -> None:
    core = status(settings, Inventory.CORE)
    assert (core.state, core.findings) == (TokenState.COMPLETE, ())
    names = ["KEK", "KEK_sap", "K_pep", "K_act", "K_row", "K_pid", "K_idx", "K_dev", "K_col", "TOK", "SEAL", "LOG"]
    assert list(core.keys) == [f"{name}_1" for name in names]
    pki = status(pki_token(tmp_path), Inventory.PKI)
    assert (pki.state, pki.keys) == (TokenState.COMPLETE, ("ROOT_1", "CA_1", "OCSP_1", "TSA_1"))


@pytest.mark.parametrize("inventory", list(Inventory))
def test_each_single_loosened_attribute_is_named(tmp_path: Path, inventory: Inventory) -> None:
    settings = core_token(tmp_path) if inventory is Inventory.CORE else pki_token(tmp_path)
    cases = act(settings, "audit_every_loosened_attribute", inventory)
    assert len(cases) > 40
    made = 0
    for case, findings in cases.items():
        label, _, attribute, _ = case.split()
        assert findings, f"{case} passed the audit"
        if findings[0].startswith("the token does not make it"):
            continue
        made += 1
        named = [finding for finding in findings if finding.startswith(label)]
        missing = [finding for finding in named if finding.endswith("missing")]
        assert any(f"CKA_{attribute}" in finding for finding in named) or (attribute == "TOKEN" and missing), findings
    assert made > len(cases) * 3 // 4


@pytest.mark.parametrize(
    ("label", "changes", "named"),
    [
        ("KEK_1", {"DECRYPT": True}, "CKA_DECRYPT"),
        ("KEK_1", {"UNWRAP_TEMPLATE": None}, "CKA_UNWRAP_TEMPLATE"),
        ("KEK_sap_1", {"MODIFIABLE": True}, "CKA_MODIFIABLE"),
        ("K_row_1", {"EXTRACTABLE": True}, "CKA_EXTRACTABLE"),
        ("K_col_1", {"ALLOWED_MECHANISMS": None}, "CKA_ALLOWED_MECHANISMS"),
    ],
)
async def test_pool_refuses_a_loosened_key(
    settings: TokenSettings, label: str, changes: dict[str, object], named: str
) -> None:
    act(settings, "remake", label, changes)
    refused = await refusal(settings)
    assert label in refused
    assert named in refused


async def test_pool_refuses_one_key_more(settings: TokenSettings) -> None:
    act(settings, "add", "K_row_2", "K_row_1")
    assert await refusal(settings) == "K_row_2: outside the inventory"


async def test_pool_refuses_a_second_key_of_the_same_label(settings: TokenSettings) -> None:
    act(settings, "add", "K_row_1", "K_row_1")
    assert await refusal(settings) == "K_row_1 (secret key): there are 2"


async def test_pool_refuses_a_missing_key(settings: TokenSettings) -> None:
    assert act(settings, "destroy", "K_idx_1") == 1
    assert await refusal(settings) == "K_idx_1 (secret key): missing"


async def test_pool_refuses_a_key_that_was_brought_in(settings: TokenSettings) -> None:
    act(settings, "import_known", "K_act_1")
    refused = await refusal(settings)
    assert "K_act_1 (secret key): CKA_LOCAL is off" in refused
    assert "CKA_NEVER_EXTRACTABLE" in refused


async def test_pool_refuses_a_public_key_of_another_pair(settings: TokenSettings) -> None:
    act(settings, "swap_public_key", "TOK_1")
    assert "the public key is not that of the private key" in await refusal(settings)


async def test_pool_refuses_the_token_of_another_inventory(tmp_path: Path) -> None:
    refused = await refusal(pki_token(tmp_path))
    assert "KEK_1 (secret key): missing" in refused
    assert "CA_1: outside the inventory" in refused


def test_evil_unwrap_finds_a_template_that_is_not_enforced(settings: TokenSettings) -> None:
    assert act(settings, "connect_without_audit") == "accepted"
    act(settings, "remake", "KEK_1", {"UNWRAP_TEMPLATE": None})
    assert "CKA_UNWRAP_TEMPLATE is not enforced" in act(settings, "connect_without_audit")


def test_session_thief_gains_nothing_on_keys(settings: TokenSettings) -> None:
    outcome = act(settings, "evil_unwraps")
    assert len(outcome) == 24
    expected = {"wrap again": {"KeyUnextractable"}, "read": {"AttributeSensitive"}}
    for case, result in outcome.items():
        _, what = case.split(" ", 1)
        assert result != "succeeded", case
        if what in expected:
            assert result in expected[what], case
        elif what not in {"loosen", "copy"}:
            assert result == "TemplateInconsistent", case


def test_token_agrees_with_cryptography(settings: TokenSettings) -> None:
    outcome = act(settings, "against_cryptography")
    assert len(outcome) == 10
    assert [name for name, right in outcome.items() if not right] == []


@pytest.mark.parametrize(("key_type", "count"), [(KeyType.P256, 20), (KeyType.RSA3072, 3)])
def test_blobs_of_one_key_type_have_one_length(settings: TokenSettings, key_type: KeyType, count: int) -> None:
    lengths = act(settings, "wrapped_lengths", key_type, count)
    assert set(lengths["given"]) == {WRAPPED_BYTES[key_type]}
    assert set(lengths["born"]) <= {WRAPPED_BYTES[key_type], WRAPPED_BYTES[key_type] - 8}
    assert lengths["refused"] == [1], "a token that wraps otherwise must be told, not tried for ever"


def test_twenty_cold_starts_at_once(settings: TokenSettings) -> None:
    children = [start(settings, "connect") for _ in range(20)]
    outcomes = [(child.communicate(timeout=60), child.returncode) for child in children]
    assert [complaint for (_, complaint), code in outcomes if code] == []
