"""An auditor before a core that listens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from typer.testing import CliRunner, Result

from audit.client import AuditorClient
from authn.client import call
from rubrica.cli import app
from rubrica.core_sockets import listening
from tests.testkit.core import Played


@dataclass
class Auditor:
    """The typed client and the command line."""

    client: AuditorClient
    socket: Path

    async def command(self, *arguments: str) -> Result:
        """``rubrica audit …``; a thread of its own, because commands bring their own event loop."""
        line = ["audit", *arguments, "--socket", str(self.socket)]
        return await asyncio.to_thread(CliRunner().invoke, app, line)


@asynccontextmanager
async def auditing(folder: Path, played: Played) -> AsyncIterator[Auditor]:
    """Let a core listen below ``folder``."""
    socket = folder / "auditor" / "core.sock"
    async with listening(folder, played.core), grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        yield Auditor(AuditorClient(channel, call), socket)
