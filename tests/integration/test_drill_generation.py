"""A sample of the campaign of changes, and a faulted core that the same judge must find out."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from hsm.pool import HSMPool
from hsm.token_vault import TokenVault
from signer.approvals import Approvals
from signer.signing import Signing, Standing
from tests.drill.generation import moments
from tests.testkit.softhsm import core_token
from tests.testkit.vault import FakeVault


class SlowVault(FakeVault):
    """Signs so slowly that most changes come between step 16 and step 18."""

    async def sign(self, wrapped: bytes, spki: bytes, digests: Sequence[bytes], **options: Any) -> list[bytes]:
        await asyncio.sleep(0.15)
        return await super().sign(wrapped, spki, digests, **options)


async def test_no_signature_after_a_change(tmp_path: Path) -> None:
    pool = await HSMPool.start(core_token(tmp_path))
    try:
        result = await moments(TokenVault(pool), tmp_path, 3, count=12)
    finally:
        await pool.close()
    assert result["held"], result


async def test_no_signature_after_a_change_while_the_key_is_in_use(tmp_path: Path) -> None:
    result = await moments(SlowVault(), tmp_path, 4, count=10)
    assert result["held"], result
    assert result["ends"]["GenerationChanged"] >= 2


async def test_the_judge_finds_out_a_core_that_reads_nothing_again_at_step_18(tmp_path: Path) -> None:
    with (
        mock.patch.object(Signing, "_standing", return_value=Standing.ALIVE),
        mock.patch.object(Approvals, "end"),
        mock.patch("signer.credentials.Credential.is_valid", return_value=True),
        mock.patch("signer.credentials.Credential.bars_another", return_value=False),
    ):
        result = await moments(SlowVault(), tmp_path, 4, count=8)
    assert not result["held"]
    assert any(fault.startswith("COMPLETE after") for fault in result["faults"])
