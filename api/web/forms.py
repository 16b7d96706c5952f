"""Files that people choose in a form."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath

from fastapi import Request, UploadFile
from starlette.datastructures import UploadFile as AnyUpload
from starlette.formparsers import MultiPartException, MultiPartParser

from api.transactions.model import cleaned_title
from domain.errors import DocumentTooLarge, MalformedRequest, NotPermitted
from domain.xmldsig import BEGINNING_BYTES, begins_as_xml

FORM_OVERHEAD_BYTES = 64 * 1024
"""Names and borders of a form's parts."""
DRAINED_BYTES = 1024 * 1024 * 1024
"""So much of a form that is too long is read and thrown away: a browser that could not send it to its end may show no
answer. A longer one is answered at once."""
_CHUNK_BYTES = 1024 * 1024
_OWN = frozenset({"same-origin", "none", ""})


class TooManyFiles(MalformedRequest):
    """More than are taken at once."""


def require_own_site(request: Request) -> None:
    """Let only our own pages send a form: browsers say where it comes from, and nobody's script can say otherwise.

    Raises:
        NotPermitted: Another site's page sent it.
    """
    if request.headers.get("sec-fetch-site", "") not in _OWN:
        raise NotPermitted("this form was sent from another site")


@asynccontextmanager
async def files(
    request: Request, *, each_bytes: int, most: int, whole_bytes: int = 0
) -> AsyncIterator[dict[str, list[UploadFile]]]:
    """The chosen files by field, while the block lasts.

    Args:
        request: The form.
        each_bytes: What a file may have. Of a longer one the first octets are kept, one more than this.
        most: So many files.
        whole_bytes: What all of them may have; ``most`` times ``each_bytes`` where it is not given.

    Raises:
        NotPermitted: Another site's page sent it.
        MalformedRequest: Not a form with files.
        TooManyFiles: More than ``most``.
        DocumentTooLarge: Over ``whole_bytes``.
    """
    require_own_site(request)
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise MalformedRequest("a form says how long it is")
    if int(length) > (whole_bytes or most * each_bytes) + FORM_OVERHEAD_BYTES:
        if int(length) <= DRAINED_BYTES:
            async for _ in request.stream():
                pass
        raise DocumentTooLarge("the files are larger than this service takes")
    try:
        form = await _Parser(request, each_bytes, most).parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise TooManyFiles(f"a form has at most {most} files") from None
        raise MalformedRequest("this is not a form with files") from None
    except KeyError:  # without a Content-Type
        raise MalformedRequest("this is not a form with files") from None
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


def name_of(file: UploadFile) -> str:
    """A file's name as its owner knows it.

    Browsers escape these three signs, and no others (HTML, §4.10.22.8, multipart/form-data).
    """
    return (file.filename or "?").replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def title_of(file: UploadFile, untitled: str) -> str:
    """What a document is called: its file's name without folders and ending.

    Args:
        file: The document.
        untitled: What to call it where nothing of its name is left that could be seen, as of ``..pdf``.
    """
    name = PurePath(name_of(file).replace("\\", "/")).name
    stem, dot, _ = name.rpartition(".")
    title = file_stem(stem if dot else name)
    try:
        cleaned_title(title)
    except MalformedRequest:
        return untitled
    return title


def file_stem(title: str) -> str:
    """What a file with this title may be called, without its ending: a dot in front would hide it; maybe nothing."""
    return title.replace("/", " ").strip(". ")


async def is_pdf(file: UploadFile) -> bool:
    """Whether it says so of itself where readers of PDF look for it."""
    await file.seek(0)
    return b"%PDF-" in await file.read(1024)


async def is_xml(file: UploadFile) -> bool:
    """Whether it begins as XML does; what a browser says of a file's type is guessed from its name."""
    await file.seek(0)
    return begins_as_xml(await file.read(BEGINNING_BYTES))
