"""Pages of the gate. Secrets are sealed by their own script before they leave the browser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import TypeAdapter

from api.gate.endpoints import Relaying, RequestId
from api.gate.schemas import OutBytes, RequestView
from api.look.pages import FrontRoute, Look, Page, PeopleRoute, look_of
from api.look.sentences import all_sentences
from domain.errors import NotFound
from domain.items import Purpose

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
NONCE_PATTERN = r"^[A-Za-z0-9_-]{16,128}$"
WEB = "web"
"""The citizens' own web, as the core knows it."""
_COORDINATE_BYTES = 32

router = APIRouter(route_class=PeopleRoute, include_in_schema=False)
anybody = APIRouter(route_class=FrontRoute, include_in_schema=False)


def make_look() -> Look:
    """The gate's templates, style and scripts."""
    return Look(Path(__file__).parent, policy=POLICY, home="/")


def token_key_jwk(pem: bytes) -> dict[str, str]:
    """The core's TOK key as the pages get it (RFC 7518 §6.2.1).

    Raises:
        ValueError: Not the PEM of a P-256 public key.
    """
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the token key is a P-256 public key")  # noqa: TRY004 - it is the file's content that is wrong
    numbers = key.public_numbers()
    encoded = TypeAdapter(OutBytes).dump_python
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": encoded(numbers.x.to_bytes(_COORDINATE_BYTES, "big")),
        "y": encoded(numbers.y.to_bytes(_COORDINATE_BYTES, "big")),
    }


def _token_key(request: Request) -> dict[str, str]:
    found: dict[str, str] = request.app.state.token_key
    return found


TokenKey = Annotated[dict[str, str], Depends(_token_key)]


@anybody.api_route("/", methods=["GET", "HEAD"])
async def home(request: Request) -> HTMLResponse:
    """What can be done at the gate."""
    return look_of(request.app).page(request, "home.html")


@router.get("/authorise/{request_id}")
async def authorise(request_id: RequestId, request: Request, relaying: Relaying, token_key: TokenKey) -> HTMLResponse:
    """Who asks for which signatures; then password and one-time code."""
    described = await relaying.authorisation.describe(request_id)
    look = look_of(request.app)
    documents = [item for item in described.items if item.purpose is Purpose.SIGN]
    values = {
        "request_id": request_id,
        # The very list that is shown is hashed by the script.
        "listed": RequestView.of(described).model_dump(mode="json"),
        "client_name": described.client_name,
        "titles": [item.title for item in documents],
        "certificate": len(documents) < len(described.items),
        "named": described.citizen_named,
        "approved": described.approved,
        # To nowhere but where the core would send the browser with its code; without one, the edge shows the documents.
        "back": f"{described.return_url}?{urlencode({'request': request_id})}",
        **_script_values(look.words(request), token_key),
    }
    return look.page(request, "authorise.html", values)


@router.get("/activate")
async def activate(request: Request, token_key: TokenKey) -> HTMLResponse:
    """From the receipt's code to a password."""
    return _enrol(request, "activation", token_key)


@router.get("/password")
async def password(request: Request, token_key: TokenKey) -> HTMLResponse:
    """From the present password to another one."""
    return _enrol(request, "password-change", token_key)


@router.get("/pin")
async def pin(
    request: Request, token_key: TokenKey, nonce: Annotated[str, Query(pattern=NONCE_PATTERN)]
) -> HTMLResponse:
    """From an access code to a login of level low; the citizens' web sends its visitors here."""
    look = look_of(request.app)
    words = look.words(request)
    values = _script_values(words, token_key)
    values["texts"] |= {
        "leaving": words("Your PIN was right. Going to your area…"),
        "codeShape": words("An access code has four letters or digits, without accents or Ñ."),
        "pinShape": words("A PIN has six letters and digits. Type all of them."),
        "wrongCode": words("That was not right. Compare the reference, and check your access code and the PIN."),
        "triesOver": words(
            "That was not right, and this PIN cannot be used any more. Check NIF and e-mail and ask for a new PIN."
        ),
        "code_expired": words("The ten minutes of this PIN are over. Ask for a new one."),
        "factor_locked": words("There were too many failed attempts. Please try again in an hour."),
    }
    return look.page(request, "pin.html", {"audience": WEB, "nonce": nonce, **values})


@router.get("/{path:path}")
async def nothing(path: str) -> HTMLResponse:
    """An address that is none of ours."""
    raise NotFound(f"there is no page of {len(path)} characters here")


def _enrol(request: Request, kind: str, token_key: Mapping[str, str]) -> HTMLResponse:
    look = look_of(request.app)
    return look.page(request, "enrol.html", {"kind": kind, **_script_values(look.words(request), token_key)})


def _script_values(words: Page, token_key: Mapping[str, str]) -> dict[str, Any]:
    texts = {
        "working": words("One moment…"),
        "leaving": words("Approved. Going back to your documents…"),
        "tries": words("{tries} attempts left."),
        "oneTry": words("One attempt left."),
        "wrongCode": words("Code, password or NIF was not right. Compare the reference and type the code again."),
        "triesOver": words(
            "That was not right, and this code cannot be used any more. Nothing was signed. Check NIF and password "
            "and start again from here."
        ),
        "resent": words("The SMS is sent again."),
        "resendPossible": words("You can now ask for the SMS again."),
        "noMoreMessages": words("This SMS is not sent any more. Correct your data to get a new code."),
        "show": words("Show"),
        "hide": words("Hide"),
        "rulesMet": words("The password meets the rules."),
        "notNif": words(
            "This NIF or NIE cannot be right: its letter does not go with its digits. Compare it with your identity "
            "document."
        ),
        "rulesNotMet": words("The password does not meet the rules yet."),
        "notYourName": words("The password must not contain your name, surnames or NIF. Please choose another one."),
        "no_network": words("There is no connection to the service. Check your network and try again."),
        "key_not_vouched": words(
            "This page could not make sure that only the signing device will read what you type, so nothing was sent. "
            "Please do not go on, and tell the service."
        ),
    }
    return {"token_key": token_key, "texts": texts, "sentences": all_sentences(words)}
