"""What people write for an entry or a citizen: a position, or as much of an id or pseudonym as tells it from others."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from audit.entries import Filter
from domain.errors import MalformedRequest, NotFound
from domain.ids import is_id

if TYPE_CHECKING:
    from audit.client import AuditorClient
    from audit.entries import Entry

PAGE = 500
"""Entries that are asked for at once."""
POSITION_DIGITS = 18
"""What is longer cannot be a position, which has 63 bits."""


async def entry_named(client: "AuditorClient", name: str) -> "Entry":
    """The entry that ``name`` stands for.

    Args:
        client: Of the log.
        name: Its position, its id, or the first symbols of its id; a number is a position.

    Raises:
        NotFound: There is none.
        MalformedRequest: There are several.
    """
    if name.isdecimal() and len(name) <= POSITION_DIGITS:
        found = (await client.page(Filter(), after=max(int(name), 1) - 1, limit=1)).entries
        if not found or found[0].position != int(name):
            raise NotFound(f"no entry of the log has position {name}")
        return found[0]
    if is_id(name):
        return await client.entry(name)
    first: Entry | None = None
    async for entry in _all(client):
        if name and entry.leaf.id.startswith(name.upper()):
            if first is not None:
                raise MalformedRequest(f"'{name}' begins several ids, {first.leaf.id} and {entry.leaf.id} among them")
            first = entry
    if first is None:
        raise NotFound("no entry of the log has this id")
    return first


async def citizen_named(client: "AuditorClient", name: str) -> bytes:
    """The pseudonym whose first hexadecimal digits are ``name``.

    Raises:
        NotFound: No entry has one.
        MalformedRequest: There are several.
    """
    found = b""
    async for entry in _all(client):
        pid = entry.leaf.pid
        if pid is not None and pid != found and pid.hex().startswith(name.lower()):
            if found:
                raise MalformedRequest(f"'{name}' begins several pseudonyms, {found.hex()} and {pid.hex()} among them")
            found = pid
    if not found:
        raise NotFound(f"no entry of the log has a pseudonym that begins with '{name}'")
    return found


async def _all(client: "AuditorClient") -> "AsyncIterator[Entry]":
    after, at_end = 0, False
    while not at_end:
        page = await client.page(Filter(), after=after, limit=PAGE)
        for entry in page.entries:
            yield entry
        after, at_end = page.reached, page.at_end
