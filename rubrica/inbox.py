"""The development inbox's process: a file and a page."""

import asyncio
import os
from pathlib import Path

import structlog

from authn.messages.inbox.app import create_app
from authn.messages.inbox.store import InboxStore
from domain.clock import SystemClock
from rubrica.logs import configure_logs
from rubrica.serving import listening_socket, serve_together
from rubrica.settings.inbox import InboxSettings

log = structlog.get_logger()


def run(settings_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        pydantic.ValidationError: The settings are wrong, or of the production profile.
        ValueError: The file holds something else than messages.
        OSError: The address or the file cannot be used.
    """
    os.umask(0o077)
    settings = InboxSettings.load(settings_path)
    configure_logs(settings.log_level)
    store = InboxStore(settings.file, SystemClock())
    try:
        with listening_socket(settings.host, settings.port, settings.listen_fd) as listening:
            log.warning(
                "development inbox: every SMS is written to a file and shown on a page", file=str(settings.file)
            )
            asyncio.run(serve_together([(create_app(store), listening)]))
    finally:
        store.close()
