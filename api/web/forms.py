"""Files that people choose in a form."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath

from fastapi import Request, UploadFile
from starlette.datastructures import UploadFile as AnyUpload
from starlette.exceptions import HTTPException

from domain.errors import DocumentTooLarge, MalformedRequest, NotPermitted

FORM_OVERHEAD_BYTES = 64 * 1024
"""Names and borders of a form's parts."""
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
async def files(request: Request, *, limit_bytes: int, most: int) -> AsyncIterator[dict[str, list[UploadFile]]]:
    """The chosen files by field, while the block lasts.

    Raises:
        NotPermitted: Another site's page sent it.
        MalformedRequest: Not a form with files, or more than ``most``.
        DocumentTooLarge: Over ``limit_bytes`` in all.
    """
    require_own_site(request)
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise MalformedRequest("a form says how long it is")
    if int(length) > limit_bytes + FORM_OVERHEAD_BYTES:
        async for _ in request.stream():
            pass
        raise DocumentTooLarge("the files are larger than this service takes")
    try:
        form = await request.form(max_files=most, max_fields=10)
    except HTTPException:
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
    return (await file.read(64)).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")
