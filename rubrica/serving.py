"""What processes with an HTTP face share: the channel to the core, servers that stop in order."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import uvicorn
from fastapi import FastAPI

from domain.errors import DependencyUnavailable
from rubrica.settings.web import WebSettings

STOP_SECONDS = 8
CORE_READY_SECONDS = 1.0
BACKLOG = 512


def core_channel(core_socket: Path) -> "grpc.aio.Channel":
    """A channel that finds a restarted core again within a second."""
    return grpc.aio.insecure_channel(
        f"unix:{core_socket.absolute()}",
        options=[
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        ],
    )


async def core_answers(channel: "grpc.aio.Channel") -> None:
    """Nothing, if the core is there.

    Raises:
        DependencyUnavailable: It is not.
    """
    try:
        await asyncio.wait_for(channel.channel_ready(), CORE_READY_SECONDS)
    except TimeoutError:
        raise DependencyUnavailable("the signing core does not answer", retry_after_seconds=2) from None


async def serve(app: FastAPI, settings: WebSettings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way may end."""
    with listening_socket(settings.host, settings.port, settings.listen_fd) as listening:
        await serve_together([(app, listening)])


async def serve_together(
    faces: Sequence[tuple[FastAPI, socket.socket]], *, requests_at_once: int | None = None
) -> None:
    """Serve several applications, each on its own socket, until SIGTERM or SIGINT; requests under way may end.

    Args:
        faces: Applications with listening sockets.
        requests_at_once: For each face; who comes beyond that is told 503.
    """
    servers = [(_Server(_config(app, requests_at_once)), listening) for app, listening in faces]

    def stop() -> None:
        for server, _ in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as group:
        for server, listening in servers:
            group.create_task(server.serve([listening]))


def listening_socket(host: str, port: int, listen_fd: int | None) -> socket.socket:
    """The socket inherited as ``listen_fd``, or a new one at ``host`` and ``port``."""
    if listen_fd is not None:
        return socket.socket(fileno=listen_fd)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class _Server(uvicorn.Server):
    """Leaves signals to ``serve_together``: uvicorn would raise them again after it has stopped in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: FastAPI, requests_at_once: int | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        # Ours has routes instead of paths and queries, which hold links and codes.
        access_log=False,
        server_header=False,
        limit_concurrency=requests_at_once,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
