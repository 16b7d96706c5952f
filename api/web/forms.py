"""Files that people choose in a form."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath

from fastapi import Request, UploadFile
from starlette.datastructures import UploadFile as AnyUpload
from starlette.formparsers import MultiPartException, MultiPartParser

from domain.errors import DocumentTooLarge, MalformedRequest, NotPermitted
from domain.xmldsig import BEGINNING_BYTES, begins_as_xml

FORM_OVERHEAD_BYTES = 64 * 1024
"""Names and borders of a form's parts."""
DRAINED_BYTES = 1024 * 1024 * 1024
"""So much of a form that is too long is read and thrown away: a browser that could not send it to its end may show no
answer. A longer one is answered at once."""
_CHUNK_BYTES = 1024 * 1024
_OWN = frozenset({"same-origin", "none", ""})


def require_own_site(request: Request) -> None:
    """Let only our own pages send a form: browsers say where it comes from, and nobody's script can say otherwise.

    Raises:
        NotPermitted: Another site's page sent it.
    """
    if request.headers.get("sec-fetch-site", "") not in _OWN:
        raise NotPermitted("this form was sent from another site")


@asynccontextmanager
async def files(request: Request, *, each_bytes: int, most: int) -> AsyncIterator[dict[str, list[UploadFile]]]:
    """The chosen files by field, while the block lasts.

    Args:
        request: The form.
        each_bytes: What a file may have. Of a longer one the first octets are kept, one more than this.
        most: So many files.

    Raises:
        NotPermitted: Another site's page sent it.
        MalformedRequest: Not a form with files, or more than ``most``.
        DocumentTooLarge: Over ``most`` times ``each_bytes`` in all.
    """
    require_own_site(request)
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise MalformedRequest("a form says how long it is")
    if int(length) > most * each_bytes + FORM_OVERHEAD_BYTES:
        if int(length) <= DRAINED_BYTES:
            async for _ in request.stream():
                pass
        raise DocumentTooLarge("the files are larger than this service takes")
    try:
        form = await _Parser(request, each_bytes, most).parse()
    except (MultiPartException, KeyError):  # the latter without a Content-Type
        raise MalformedRequest("this is not a form with files, or has too many") from None
    try:
        found: dict[str, list[UploadFile]] = {}
        for name, value in form.multi_items():
            # A field that was left empty comes as a file without name and octets.
            if isinstance(value, AnyUpload) and (value.filename or value.size):
                found.setdefault(name, []).append(value)  # type: ignore[arg-type] # FastAPI's class adds only types
        yield found
    finally:
        await form.close()


class _Parser(MultiPartParser):
    """Keeps of each file one octet more than it may have: enough to be refused, and the rest takes no room."""

    def __init__(self, request: Request, each_bytes: int, most: int) -> None:
        super().__init__(request.headers, request.stream(), max_files=most, max_fields=10)
        self._each_bytes = each_bytes
        self._room = 0

    def on_part_begin(self) -> None:
        self._room = self._each_bytes + 1
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        kept = min(end - start, self._room)
        self._room -= kept
        super().on_part_data(data, start, start + kept)


async def octets(file: UploadFile) -> AsyncIterator[bytes]:
    """A file from its beginning."""
    await file.seek(0)
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


def title_of(file: UploadFile) -> str:
    """What a document is called: its file's name without folders and ending."""
    name = PurePath((file.filename or "").replace("\\", "/")).name
    return PurePath(name).stem or name or "?"


async def is_xml(file: UploadFile) -> bool:
    """Whether it begins as XML does; what a browser says of a file's type is guessed from its name."""
    await file.seek(0)
    return begins_as_xml(await file.read(BEGINNING_BYTES))
