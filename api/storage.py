"""The document store on a local folder. Names are ids that we draw; nothing from outside becomes part of a path."""

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NewType

from domain.digests import Digest, DigestAlgorithm
from domain.errors import DocumentTooLarge, NotFound
from domain.ids import new_id

StoredId = NewType("StoredId", str)

CHUNK_BYTES = 256 * 1024
BESIDE_BYTES = 64 * 1024 * 1024
"""What is kept beside one document at most; what is more is made anew each time."""

_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")
_SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Stored:
    """A document that is safely on disk."""

    stored_id: StoredId
    size_bytes: int
    digest: Digest
    """SHA-256 of its octets."""


class DocumentStore:
    """Files of mode 0600 under one folder; what has an id is complete and on disk, or it is not there."""

    def __init__(self, folder: Path, *, draw_id: Callable[[], str] = new_id) -> None:
        self._folder = folder
        self._draw_id = draw_id
        for place in (folder, folder / _SCRATCH):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def write(self, stream: AsyncIterator[bytes], *, limit_bytes: int) -> Stored:
        """Store what ``stream`` gives, without holding it in memory.

        Raises:
            DocumentTooLarge: It gave more than ``limit_bytes``; nothing is kept.
        """
        scratch = self.scratch()
        digest = hashlib.sha256()
        size = 0
        try:
            with _create(scratch) as file:
                async for chunk in stream:
                    size += len(chunk)
                    if size > limit_bytes:
                        raise DocumentTooLarge(f"a document has at most {limit_bytes} bytes here")
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
            stored_id = await self.keep(scratch)
        finally:
            scratch.unlink(missing_ok=True)
        return Stored(stored_id, size, Digest(DigestAlgorithm.SHA256, digest.digest()))

    def scratch(self) -> Path:
        """A path for work in progress; it stays there until it is kept, discarded or swept away."""
        return self._folder / _SCRATCH / self._draw_id()

    async def keep(self, scratch: Path) -> StoredId:
        """Give finished work an id: synced, then renamed, then the folder synced."""
        stored_id = StoredId(self._draw_id())
        await asyncio.to_thread(_settle, scratch, self._path(stored_id))
        return stored_id

    async def copy(self, stored_id: StoredId) -> Path:
        """A scratch copy to change in place."""
        scratch = self.scratch()
        await asyncio.to_thread(_copy, self.path(stored_id), scratch)
        return scratch

    def path(self, stored_id: StoredId) -> Path:
        """Where a stored document lies; not to be written to.

        Raises:
            NotFound: No such document, or not an id.
        """
        if not _ID.fullmatch(stored_id):
            raise NotFound("no such document")
        path = self._path(stored_id)
        if not path.is_file():
            raise NotFound("no such document")
        return path

    async def read(self, stored_id: StoredId) -> AsyncIterator[bytes]:
        """The document's octets, piece by piece."""
        with self.path(stored_id).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def delete(self, *stored_ids: StoredId | None) -> None:
        """Remove documents with what is beside them; those that are gone already are no fault."""
        for stored_id in stored_ids:
            if stored_id is not None and _ID.fullmatch(stored_id):
                await asyncio.to_thread(self._path(stored_id).unlink, missing_ok=True)
                await asyncio.to_thread(shutil.rmtree, self._beside(stored_id), ignore_errors=True)

    async def beside(self, stored_id: StoredId, name: str) -> bytes | None:
        """What ``keep_beside`` kept, if it did.

        Raises:
            NotFound: No such document.
        """
        self.path(stored_id)
        return await asyncio.to_thread(_content, self._beside(stored_id) / name)

    async def keep_beside(self, stored_id: StoredId, name: str, octets: bytes) -> None:
        """Keep what was made of a document until the document is deleted, as far as ``BESIDE_BYTES`` go.

        Args:
            stored_id: The document.
            name: A name of our own, as a file may have.
            octets: May be lost by a crash, and are made anew then.
        """
        folder, scratch = self._beside(stored_id), self.scratch()
        await asyncio.to_thread(_keep_beside, folder, scratch, name, octets)
        if not self._path(stored_id).is_file():  # deleted in the meantime
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def sweep(self, *, older_than_epoch_seconds: float) -> int:
        """Remove scratch files that a crash left behind; gives their number."""
        return await asyncio.to_thread(_sweep, self._folder / _SCRATCH, older_than_epoch_seconds)

    def _beside(self, stored_id: StoredId) -> Path:
        return self._path(stored_id).with_suffix(".d")

    def _path(self, stored_id: StoredId) -> Path:
        # Two levels keep folders small; ids are random, so they spread evenly.
        return self._folder / stored_id[:2] / stored_id


def _create(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb")


def _copy(source: Path, destination: Path) -> None:
    with source.open("rb") as original, _create(destination) as copied:
        shutil.copyfileobj(original, copied, CHUNK_BYTES)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _keep_beside(folder: Path, scratch: Path, name: str, octets: bytes) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if sum(file.stat().st_size for file in folder.iterdir()) + len(octets) > BESIDE_BYTES:
        return
    with _create(scratch) as file:
        file.write(octets)
    scratch.rename(folder / name)


def _settle(scratch: Path, destination: Path) -> None:
    destination.parent.mkdir(mode=0o700, exist_ok=True)
    scratch.chmod(0o600)
    _sync(scratch)
    scratch.rename(destination)
    _sync(destination.parent)
    _sync(destination.parent.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, older_than_epoch_seconds: float) -> int:
    swept = 0
    for path in folder.iterdir():
        if path.stat().st_mtime < older_than_epoch_seconds:
            path.unlink(missing_ok=True)
            swept += 1
    return swept
