"""Parts of a running service that are really away, and what the core's log says meanwhile."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from audit.client import AuditorClient
from audit.entries import Filter
from audit.log import EventTag
from authn.client import call
from domain.items import Purpose
from rubrica.state import caller_channel
from tests.testkit.service import Service

BACK_SECONDS = 40.0


@contextlib.contextmanager
def standing_still(service: Service, name: str) -> Iterator[None]:
    """One of its processes answers nobody, as a machine does that hangs."""
    pid = service.running.pids[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def token_away(service: Service) -> Iterator[None]:
    """The core's token cannot be reached: its folder is gone, and so are the workers that had it open."""
    folder = service.running.state / "tokens" / "core"
    away = folder.with_name("core-away")
    folder.rename(away)
    try:
        workers = _workers(service.running.pids["core"])
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        yield
    finally:
        away.rename(folder)


@contextlib.contextmanager
def pki_stopped(service: Service) -> Iterator[None]:
    """Timestamp authority, OCSP, lists and issuer are dead, and cannot start again before the block ends."""
    settings = service.running.state / "settings" / "pki.toml"
    away = settings.with_name("pki-away.toml")
    settings.rename(away)
    try:
        os.kill(service.running.pids["pki"], signal.SIGKILL)
        yield
    finally:
        away.rename(settings)
        ends = time.monotonic() + BACK_SECONDS
        while not _answers(f"{service.running.pki}/certs/ca.crt"):
            assert time.monotonic() < ends, "the PKI did not come back"


def signatures(service: Service) -> int:
    """How many documents were ever signed, as the core's log has it."""
    socket = service.running.operator_socket.parent.parent / "auditor" / "core.sock"

    async def count() -> int:
        found, after, at_end = 0, 0, False
        async with caller_channel("auditor", socket) as channel:
            client = AuditorClient(channel, call)
            while not at_end:
                page = await client.page(Filter(types=frozenset({EventTag.COMPLETE})), after=after, limit=500)
                found += sum(entry.purpose == Purpose.SIGN for entry in page.entries)
                after, at_end = page.reached, page.at_end
        return found

    # In a thread of its own: a browser's driver keeps this one's event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, count()).result()


def _workers(core: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{core}/task").glob("*/children"):
        for child in listed.read_text().split():
            with contextlib.suppress(OSError):
                if b"\0hsm.worker\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
