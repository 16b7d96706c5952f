"""The development PKI's process: a token, a store, and two HTTP faces in one event loop."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from certs.pki.service import PKI, TokenThread
from certs.pki.web import create_issuing_app, create_public_app
from domain.clock import SystemClock
from hsm.keys import Inventory
from hsm.settings import TokenSettings
from hsm.token import Token
from rubrica.settings.pki import PKISettings

REQUESTS_AT_ONCE = 200
"""More than that per face are told 503, instead of waiting without end for the one token thread."""
STOP_SECONDS = 5

log = structlog.get_logger()


def run(settings_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        pydantic.ValidationError: The settings are wrong, or of the production profile.
        HSMError: The token is not there, or not as it must be.
        PublicURLChanged: ``public_url`` is not that of the certificates already issued.
        OSError: An address or the socket's folder cannot be used.
    """
    settings = PKISettings.load(settings_path)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(settings.log_level))
    asyncio.run(_serve(settings))


async def _serve(settings: PKISettings) -> None:
    token_settings = TokenSettings(
        module=settings.token_module,
        token_label=settings.token_label,
        pin_file=settings.token_pin_file,
        conf_path=settings.softhsm2_conf,
    )
    thread = TokenThread()
    try:
        token = await thread.run(Token.connect, token_settings, Inventory.PKI)
        try:
            pki = await thread.run(PKI.open, token, settings.database_url, settings.public_url, SystemClock())
            with _private_socket(settings.issuer_socket) as private, _public_socket(settings) as public:
                faces = [
                    (_Server(create_issuing_app(pki, thread)), private),
                    (_Server(create_public_app(pki, thread)), public),
                ]
                await _serve_until_stopped(faces, settings)
        finally:
            await thread.run(token.close)
    finally:
        thread.close()


class _Server(uvicorn.Server):
    """One of two in a loop, so signals are not its business."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                limit_concurrency=REQUESTS_AT_ONCE,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve_until_stopped(faces: list[tuple[_Server, socket.socket]], settings: PKISettings) -> None:
    def stop() -> None:
        for server, _ in faces:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as group:
        for server, listening in faces:
            group.create_task(server.serve([listening]))
        log.warning(
            "development PKI ready: its certificates are worth nothing outside",
            public_url=settings.public_url,
            issuer_socket=str(settings.issuer_socket),
        )
    log.info("development PKI stopped")


def _public_socket(settings: PKISettings) -> socket.socket:
    if settings.listen_fd is not None:
        return socket.socket(fileno=settings.listen_fd)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family)


@contextlib.contextmanager
def _private_socket(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent.stat()
    if folder.st_uid != os.geteuid() or stat.S_IMODE(folder.st_mode) & 0o077:
        raise PermissionError(f"{path.parent} must be our own and closed to other users (chmod 0700)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        try:
            listening.bind(str(path))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            # Left by a process that was killed, unless somebody answers.
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise
            path.unlink()
            listening.bind(str(path))
        listening.listen(128)
        try:
            yield listening
        finally:
            path.unlink(missing_ok=True)
