"""Is this paper ours: what anybody may ask who holds a paper of the service, by the code at its foot.

The code is posted and shows in no address and no log. A code that is none, by its check symbol, is told as mistyped
and asked nowhere; every other one that is not known gets one and the same answer.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse

from api.look.languages import remember
from api.look.pages import PeopleRoute, look_of
from api.problems import STATUSES
from api.web.forms import require_own_site
from api.web.services import Provided
from domain.codes import is_code, normalise_code
from domain.errors import NotFound, RateLimited

VERIFY_PATH = "/verify"
"""Printed on every paper that was ever handed out, so it stays."""
CODE_LIMIT_CHARACTERS = 100
"""What somebody may type; with all its hyphens and spaces a code has fewer."""
_SOON_SECONDS = 60
_FIELD_STATUSES = frozenset({400, 422})
"""Of answers that are about what was typed."""

router = APIRouter(route_class=PeopleRoute, include_in_schema=False)


@router.get(VERIFY_PATH)
async def ask(request: Request) -> HTMLResponse:
    """Which code."""
    answer = _form(request)
    remember(request, answer)
    return answer


@router.post(VERIFY_PATH)
async def answer(request: Request, provided: Provided, code: Annotated[str, Form()] = "") -> HTMLResponse:
    """What is known of the paper: enough to compare, nothing of what is written on it."""
    require_own_site(request)
    look = look_of(request.app)
    words = look.words(request)
    if not code.strip():
        return _form(request, error=words("Type the code first."), status=400)
    if len(code) > CODE_LIMIT_CHARACTERS or not is_code(normalise_code(code)):
        mistyped = words("This is not how it stands on the paper: a character is wrong, missing or too many.")
        return _form(request, typed=code[:CODE_LIMIT_CHARACTERS], error=mistyped, status=422)
    try:
        provided.pace.admit(request.client.host if request.client else "")
        known = await provided.papers.verify(code)
    except RateLimited as error:
        seconds = error.retry_after_seconds or _SOON_SECONDS
        shortly = words("Too many codes were checked from your connection. Please try again in a minute.")
        later = words("Too many codes were checked from your connection today. Please try again tomorrow.")
        said = shortly if seconds <= _SOON_SECONDS else later
        refused = _form(request, typed=code, error=said, status=STATUSES[error.code])
        refused.headers["Retry-After"] = str(seconds)
        return refused
    except NotFound as error:
        return _form(request, typed=code, unknown=True, status=STATUSES[error.code])
    return look.page(request, "paper.html", {"paper": known})


def _form(
    request: Request, *, typed: str = "", error: str = "", unknown: bool = False, status: int = 200
) -> HTMLResponse:
    values = {
        "typed": typed,
        "errors": [(error, "")] if error else [],
        "invalid": status in _FIELD_STATUSES,
        "unknown": unknown,
    }
    return look_of(request.app).page(request, "verify.html", values, status=status)
