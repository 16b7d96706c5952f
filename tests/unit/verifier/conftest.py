"""One log of 300 leaves as it lies on disk, with what an auditor kept of it."""

import asyncio
import random
import shutil

import pytest

from tests.testkit.verifying import a_history, a_log, commit, publish, write_key

STEPS = (40, 250, 300)


async def _make(folder):
    history = a_history(STEPS[-1], random.Random(300))  # noqa: S311 - the same seed, the same log
    before = 0
    async with a_log(folder) as logging:
        for size in STEPS:
            await commit(logging, history[before:size])
            before = size
            files = await publish(logging)
            shutil.copy(files / "checkpoint", folder / f"kept-{size}")
            shutil.copytree(files, folder / f"at-{size}")
        await write_key(logging.vault, folder / "log.pem")
        return Made(folder, history, logging.vault)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return asyncio.run(_make(tmp_path_factory.mktemp("made")))


class Made:
    def __init__(self, folder, history, vault) -> None:
        self.folder = folder
        self.history = history
        self.vault = vault
        self.key = folder / "log.pem"
        self.kept = [word for size in STEPS for word in ("--checkpoint", folder / f"kept-{size}")]


@pytest.fixture
def files(made, tmp_path):
    """A copy of the newest files, to spoil."""
    shutil.copytree(made.folder / "at-300", tmp_path / "log")
    return tmp_path / "log"
