"""The development inbox's process: a file and a page."""

import socket
from pathlib import Path

import structlog
import uvicorn

from authn.messages.inbox.app import create_app
from authn.messages.inbox.store import InboxStore
from domain.clock import SystemClock
from rubrica.settings.inbox import InboxSettings

STOP_SECONDS = 5

log = structlog.get_logger()


def run(settings_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        pydantic.ValidationError: The settings are wrong, or of the production profile.
        ValueError: The file holds something else than messages.
        OSError: The address or the file cannot be used.
    """
    settings = InboxSettings.load(settings_path)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(settings.log_level))
    store = InboxStore(settings.file, SystemClock())
    try:
        config = uvicorn.Config(
            create_app(store),
            host=settings.host,
            port=settings.port,
            log_config=None,
            # Addresses asked for hold telephone numbers.
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        log.warning("development inbox: every SMS is written to a file and shown on a page", file=str(settings.file))
        inherited = [] if settings.listen_fd is None else [socket.socket(fileno=settings.listen_fd)]
        uvicorn.Server(config).run(inherited or None)
    finally:
        store.close()
