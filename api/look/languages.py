"""Which language a page is in, and the catalogues: English in templates and code, the rest in ``locale/*.po``."""

import functools
import gettext
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from babel.core import negotiate_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from fastapi import Request, Response

SOURCE = "en"
"""Language of the texts in templates and code."""
NAMES: Mapping[str, str] = {"es": "Español", "en": "English"}
"""What is offered, by its own name; the first where a browser asks for none of them."""
PARAMETER = "lang"
"""Of addresses, and the name of the edge's cookie."""
LOCALE = Path(__file__).parent / "locale"
_ACCEPT_LIMIT_CHARACTERS = 500


@functools.cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The texts of one language that ``NAMES`` has."""
    if language == SOURCE:
        return gettext.NullTranslations()
    compiled = BytesIO()
    with (LOCALE / f"{language}.po").open("rb") as source:
        write_mo(compiled, read_po(source, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def language_of(request: Request) -> str:
    """What was chosen on a page, else what the browser prefers."""
    for chosen in (request.query_params.get(PARAMETER), request.cookies.get(PARAMETER)):
        if chosen in NAMES:
            return str(chosen)
    header = request.headers.get("accept-language", "")[:_ACCEPT_LIMIT_CHARACTERS]
    preferred = [(-_weight(part), part.split(";")[0].strip()) for part in header.split(",")]
    ordered = [name for _, name in sorted(preferred, key=lambda pair: pair[0]) if name]
    found = negotiate_locale([name.split("-")[0].lower() for name in ordered], list(NAMES))
    return found or next(iter(NAMES))


def remember(request: Request, answer: Response) -> None:
    """Keep the language that was chosen on this page."""
    chosen = request.query_params.get(PARAMETER)
    if chosen in NAMES:
        answer.set_cookie(PARAMETER, str(chosen), path="/", secure=True, httponly=True, samesite="lax")


def _weight(part: str) -> float:
    _, _, parameter = part.partition(";")
    try:
        return float(parameter.strip().removeprefix("q=") or 1)
    except ValueError:
        return 0.0
