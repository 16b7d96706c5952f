"""What is shown of a stored document: each outline and picture is made once, and kept as long as the document."""

import json
from collections.abc import Awaitable, Callable

from api.storage import StoredId
from api.web.services import Web
from documents import wire
from documents.model import Outline
from domain.errors import DocumentTooLarge, NotFound, UnsupportedDocument

_NOTHING = b""
"""Kept where nothing can be shown: to find that out again would cost as much again."""


async def outline(provided: Web, stored_id: StoredId, asker: str) -> Outline | None:
    """What can be shown; nothing where nothing can be, as the document may still be read with one's own program.

    Raises:
        Busy: Too much is asked for at once.
    """

    async def make() -> bytes:
        made = await provided.viewer.outline(provided.store.path(stored_id))
        return json.dumps(wire.to_plain(made)).encode()

    kept = await _once(provided, stored_id, "outline", asker, make)
    return None if kept == _NOTHING else wire.from_plain(Outline, json.loads(kept))


async def picture(provided: Web, stored_id: StoredId, number: int, asker: str) -> bytes:
    """Page ``number``, from 1, as a PNG.

    Raises:
        NotFound: No such page, or it cannot be shown.
        Busy: Too much is asked for at once.
    """
    outlined = await outline(provided, stored_id, asker)
    if outlined is None or number > outlined.page_count:
        raise NotFound("there is no picture of such a page")

    async def make() -> bytes:
        return (await provided.viewer.preview(provided.store.path(stored_id), number)).png

    kept = await _once(provided, stored_id, f"page-{number}", asker, make)
    if kept == _NOTHING:
        raise NotFound("there is no picture of such a page")
    return kept


async def _once(
    provided: Web, stored_id: StoredId, name: str, asker: str, make: Callable[[], Awaitable[bytes]]
) -> bytes:
    kept = await provided.store.beside(stored_id, name)
    if kept is not None:
        return kept
    async with provided.turns.turn(asker):
        kept = await provided.store.beside(stored_id, name)
        if kept is None:
            try:
                kept = await make()
            except (UnsupportedDocument, DocumentTooLarge):
                kept = _NOTHING
            await provided.store.keep_beside(stored_id, name, kept)
        return kept
