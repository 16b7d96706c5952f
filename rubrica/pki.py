"""The development PKI's process: a token, a store, and two HTTP faces in one event loop."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from certs.pki.service import PKI, TokenThread
from certs.pki.web import create_issuing_app, create_public_app
from domain.clock import SystemClock
from hsm.keys import Inventory
from hsm.settings import TokenSettings
from hsm.token import Token
from rubrica.logs import configure_logs
from rubrica.serving import listening_socket, serve_together
from rubrica.settings.pki import PKISettings

REQUESTS_AT_ONCE = 200
"""More than that per face are told 503, instead of waiting without end for the one token thread."""

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
    configure_logs(settings.log_level)
    os.umask(0o077)
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
            with (
                _private_socket(settings.issuer_socket) as private,
                listening_socket(settings.host, settings.port, settings.listen_fd) as public,
            ):
                log.warning(
                    "development PKI ready: its certificates are worth nothing outside",
                    public_url=settings.public_url,
                    issuer_socket=str(settings.issuer_socket),
                )
                faces = [(create_issuing_app(pki, thread), private), (create_public_app(pki, thread), public)]
                await serve_together(faces, requests_at_once=REQUESTS_AT_ONCE)
        finally:
            await thread.run(token.close)
    finally:
        thread.close()
    log.info("development PKI stopped")


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
