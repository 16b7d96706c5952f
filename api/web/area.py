"""My area: a citizen who entered with a PIN looks at what is theirs. Signing goes its own way, with both factors."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api.look.languages import PARAMETER, language_of, remember
from api.look.pages import PeopleRoute, look_of
from api.web.forms import require_own_site
from api.web.services import Provided
from api.web.sessions import LOGIN_COOKIE, SESSION_COOKIE, ended
from domain.errors import RequestExpired

AREA_PATH = "/area"
TOKEN_LIMIT_CHARACTERS = 4096

router = APIRouter(route_class=PeopleRoute, include_in_schema=False)


@router.get(AREA_PATH)
async def area(request: Request, provided: Provided, left: Annotated[bool, Query()] = False) -> HTMLResponse:
    """What the citizen may see, or the way in."""
    look = look_of(request.app)
    words = look.words(request)
    try:
        shown = await provided.area.show(request.cookies)
    except RequestExpired:
        answer = _way_in(request, note=words("Your time here is over. Enter again if you want to see more."))
        answer.headers.append("Set-Cookie", ended(SESSION_COOKIE))
    else:
        if shown is None:
            answer = _way_in(request, note=words("You have left your area.") if left else "")
        else:
            answer = look.page(
                request, "area.html", {"area": shown, "gate": provided.gate_url, "now": provided.clock.now()}
            )
    remember(request, answer)
    return answer


@router.get(f"{AREA_PATH}/enter")
async def enter(request: Request, provided: Provided) -> RedirectResponse:
    """On to the gate, with a nonce that only this browser can redeem."""
    begun = provided.area.begin()
    query = urlencode({"nonce": begun.nonce, PARAMETER: language_of(request)})
    answer = RedirectResponse(f"{provided.gate_url}/pin?{query}", status_code=303)
    answer.headers.append("Set-Cookie", begun.cookie.header)
    return answer


@router.get(f"{AREA_PATH}/return")
async def returned(
    request: Request, provided: Provided, token: Annotated[str, Query(max_length=TOKEN_LIMIT_CHARACTERS)]
) -> Response:
    """The gate sent the browser back: take the token, once; it does not stay in the address."""
    try:
        cookie = await provided.area.enter(token, request.cookies)
    except RequestExpired:
        words = look_of(request.app).words(request)
        failed = words(
            "You are not logged in: it took too long, was used before, or began in another browser. Please enter again."
        )
        # The cookie of a login stays: a false link, put before a citizen on the way, must not end it.
        return _way_in(request, error=failed, status=403)
    answer = RedirectResponse(AREA_PATH, status_code=303)
    answer.headers.append("Set-Cookie", cookie.header)
    answer.headers.append("Set-Cookie", ended(LOGIN_COOKIE))
    return answer


@router.post(f"{AREA_PATH}/leave")
async def leave(request: Request, provided: Provided) -> RedirectResponse:
    """End the session."""
    require_own_site(request)
    await provided.area.leave(request.cookies)
    answer = RedirectResponse(f"{AREA_PATH}?left=true", status_code=303)
    answer.headers.append("Set-Cookie", ended(SESSION_COOKIE))
    return answer


def _way_in(request: Request, *, note: str = "", error: str = "", status: int = 200) -> HTMLResponse:
    values = {"note": note, "errors": [(error, "")] if error else []}
    return look_of(request.app).page(request, "enter.html", values, status=status)
