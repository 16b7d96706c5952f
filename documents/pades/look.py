"""Finds what a PDF holds besides its pages, where a picture of them would not show it."""

import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

import pikepdf
from pikepdf import Array, Dictionary, Name

from documents.model import Unseen

_HIDDEN, _NO_VIEW, _TOGGLE_NO_VIEW = 2, 32, 256
"""Annotation flags (ISO 32000-2 table 167)."""
_ACTIONS_LIMIT = 1000
"""Of a chain of actions; a longer one is not followed to its end, as it may have none."""


def unseen(document: BinaryIO, page_limit: int) -> set[Unseen]:
    """What ``document`` holds that no picture of its pages shows, but for signatures.

    Args:
        document: A PDF, opened for reading.
        page_limit: So many pages are looked at.

    Source: ISO 32000-2 §12.6 (actions), §7.11.4 and §12.5.6.15 (attached files), §8.11 (layers), §12.5.3 (annotation
    flags), §12.7.8 (XFA).
    """
    document.seek(0, os.SEEK_SET)
    with pikepdf.open(document, suppress_warnings=True) as pdf:
        root = pdf.Root
        found = set()
        if any(map(_is_script, _document_actions(root))):
            found.add(Unseen.SCRIPT)
        names = _dictionary(root.get("/Names"))
        if "/JavaScript" in names:
            found.add(Unseen.SCRIPT)
        if "/EmbeddedFiles" in names or "/AF" in root or "/Collection" in root:
            found.add(Unseen.ATTACHMENTS)
        if "/OCProperties" in root:
            found.add(Unseen.LAYERS)
        if "/XFA" in _dictionary(root.get("/AcroForm")):
            found.add(Unseen.FORM)
        for page, _ in zip(pdf.pages, range(page_limit), strict=False):
            found |= _of_page(page.obj)
        return found


def warm_up() -> None:
    """Let qpdf open its source of random numbers and keep it; it asks for it, by name, at its first AES document."""
    with pikepdf.new() as pdf:
        pdf.save(BytesIO(), encryption=pikepdf.Encryption(owner="any", R=6))


def _of_page(page: Any) -> set[Unseen]:
    found = set()
    annotations = [one for one in _array(page.get("/Annots")) if isinstance(one, Dictionary)]
    actions = [action for holder in (page, *annotations) for action in _actions(holder)]
    if any(map(_is_script, actions)):
        found.add(Unseen.SCRIPT)
    if "/AF" in page or any(one.get("/Subtype") == Name.FileAttachment or "/AF" in one for one in annotations):
        found.add(Unseen.ATTACHMENTS)
    if any(map(_is_hidden, annotations)):
        found.add(Unseen.HIDDEN)
    return found


def _is_hidden(annotation: Any) -> bool:
    # Signature fields without a place have nothing to show; a pop-up says what its note says, and is usually closed.
    box = list(_array(annotation.get("/Rect")))
    placeless = len(box) == 4 and (box[0] == box[2] or box[1] == box[3])  # noqa: PLR2004 - a rectangle's numbers
    if placeless or annotation.get("/Subtype") == Name.Popup:
        return False
    flags = annotation.get("/F", 0)
    return isinstance(flags, int) and bool(flags & (_HIDDEN | _NO_VIEW | _TOGGLE_NO_VIEW))


def _document_actions(root: Any) -> Iterator[Any]:
    yield from _actions(root)
    yield from _chain(root.get("/OpenAction"))
    outlines, form = _dictionary(root.get("/Outlines")), _dictionary(root.get("/AcroForm"))
    for first, links in ((outlines.get("/First"), ("/First", "/Next")), (form.get("/Fields"), ("/Kids",))):
        for holder in _reached(first, *links):
            yield from _actions(holder)


def _actions(holder: Any) -> Iterator[Any]:
    """The action of ``holder``, and those that wait for something to happen to it."""
    yield from _chain(holder.get("/A"))
    yield from _chain(holder.get("/PA"))
    for action in _dictionary(holder.get("/AA")).values():
        yield from _chain(action)


def _chain(action: Any) -> Iterator[Any]:
    """``action`` with those that follow it."""
    waiting = [action]
    for _ in range(_ACTIONS_LIMIT):
        if not waiting:
            return
        one = waiting.pop()
        if isinstance(one, Array):
            waiting.extend(one)
        elif isinstance(one, Dictionary):
            yield one
            waiting.append(one.get("/Next"))


def _reached(first: Any, *links: str) -> Iterator[Any]:
    """All dictionaries that ``links`` lead to, each once."""
    waiting, seen = [first], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Array):
            waiting.extend(one)
        elif isinstance(one, Dictionary) and one.objgen not in seen:
            if one.is_indirect:
                seen.add(one.objgen)
            yield one
            waiting.extend(one.get(link) for link in links)


def _is_script(action: Any) -> bool:
    return action.get("/S") == Name.JavaScript or "/JS" in action


def _dictionary(value: Any) -> Any:
    return value if isinstance(value, Dictionary) else Dictionary()


def _array(value: Any) -> Any:
    return value if isinstance(value, Array) else Array()
