"""Composition root of the gate: two clients of the core behind an HTTP face."""

import asyncio
import os
from pathlib import Path

from api.gate.app import create_app
from api.gate.endpoints import Relays
from api.gate.pages import token_key_jwk
from authn.client import FactorsClient
from rubrica.logs import configure_logs
from rubrica.serving import core_answers, core_channel, serve
from rubrica.settings.gate import GateSettings
from signer.client import SignatureAuthorisationClient


def run(settings_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        pydantic.ValidationError: The settings are wrong.
        ValueError: The token key is not what it should be.
        OSError: The address or a file cannot be used.
    """
    os.umask(0o077)
    settings = GateSettings.load(settings_path)
    configure_logs(settings.log_level)
    token_key = token_key_jwk(settings.token_key_file.read_bytes()) if settings.token_key_file else None
    asyncio.run(_serve(settings, token_key))


async def _serve(settings: GateSettings, token_key: dict[str, str] | None) -> None:
    async with core_channel(settings.core_socket) as channel:
        relays = Relays(authorisation=SignatureAuthorisationClient(channel), factors=FactorsClient(channel))
        await serve(create_app(relays, lambda: core_answers(channel), token_key=token_key), settings)
