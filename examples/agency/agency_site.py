"""An example of an agency's site: a form, a PDF, the citizen's signature, the result.

``rubrica up`` runs it as a registered client. Elsewhere, with the variables below in the environment::

    AGENCY_URL=https://sede.example AGENCY_PORT=8000 ... python examples/agency/agency_site.py

Cases are kept in memory and the citizen's NIF is believed as typed: a real agency has a database, and knows who its
visitor is.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated

import uvicorn
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fastapi import Cookie, FastAPI, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from rubrica_client import AgencyClient, JWSInvalid, NewDocument, RubricaProblem

URL = os.environ["AGENCY_URL"]
RETURN_URL = f"{URL}/vuelta"  # registered with the service, letter by letter
TOKEN_KEY = Path(os.environ["AGENCY_TOKEN_KEY_FILE"]).read_bytes()  # of the service; pinned
PRIVATE_KEY = load_pem_private_key(Path(os.environ["AGENCY_KEY_FILE"]).read_bytes(), password=None)
LARGEST_BYTES = 25 * 1024 * 1024
STATES = {
    "SUBMITTED": "Pendiente de que usted lo revise",
    "REVIEWED": "Pendiente de que usted lo autorice",
    "APPROVED": "Autorizado; se está firmando",
    "SIGNING": "Autorizado; se está firmando",
    "DONE": "Firmado",
    "FAILED": "No se ha podido firmar",
    "CANCELLED": "Cancelado",
    "EXPIRED": "Caducado",
}
PAGE = """<!doctype html><html lang="es"><head><meta charset="utf-8"><title>{title} – Sede de ejemplo</title>
<meta name="viewport" content="width=device-width"></head><body><main><h1>{title}</h1>{body}</main></body></html>"""
FORM = """<p>Esta sede es un ejemplo: pide su firma al servicio y comprueba lo que vuelve.</p>
<form method="post" action="/solicitud" enctype="multipart/form-data">
<p><label for="nif">NIF</label><br><input id="nif" name="nif" required maxlength="20" autocomplete="off"></p>
<p><label for="text">Qué solicita</label><br><textarea id="text" name="text" rows="5" cols="38"></textarea></p>
<p><label for="file">O un PDF suyo</label><br><input id="file" name="file" type="file" accept="application/pdf"></p>
<p><button>Firmar la solicitud</button></p></form>"""


@dataclass
class Case:
    """What one visitor asked for."""

    transaction_id: str
    nonce: str
    verified: bool = False


app = FastAPI(openapi_url=None)
agency = AgencyClient(os.environ["AGENCY_SERVICE_URL"], os.environ["AGENCY_CLIENT_ID"], PRIVATE_KEY)  # type: ignore[arg-type]
cases: dict[str, Case] = {}
Visitor = Annotated[str, Cookie(alias="sede-ejemplo")]


@app.get("/")
def form() -> HTMLResponse:
    """What do you want?"""
    return page("Solicitud", FORM)


@app.post("/solicitud")
def ask(
    nif: Annotated[str, Form()], text: Annotated[str, Form()] = "", file: UploadFile | None = None
) -> RedirectResponse:
    """Make a transaction for this citizen, and send the browser to its review page."""
    content = file.file.read(LARGEST_BYTES) if file else b""
    title = "Solicitud" if not content else Path(file.filename or "Documento").stem if file else ""
    case = Case("", secrets.token_urlsafe(16))
    created = agency.send(
        [NewDocument(title, content or pdf(["Solicitud", "", f"NIF: {nif}", *text.splitlines()]))],
        citizen_nif=nif,
        return_url=RETURN_URL,
        nonce=case.nonce,
    )
    case.transaction_id = created.id
    visitor = secrets.token_urlsafe(32)
    cases[visitor] = case
    answer = RedirectResponse(created.review_url, status_code=303)
    answer.set_cookie("sede-ejemplo", visitor, httponly=True, samesite="lax", secure=URL.startswith("https:"))
    return answer


@app.get("/vuelta")
def returned(visitor: Visitor = "", result: str = "", error: str = "") -> Response:
    """The service sent the browser back: believe the result only if the core signed it, for us and this case."""
    case = case_of(visitor)
    if error:
        return page("No se ha firmado", f"<p>El servicio dice: <code>{escape(error)}</code></p>", 409)
    try:
        agency.verify_result(result, TOKEN_KEY, nonce=case.nonce)
    except JWSInvalid:
        return page("Resultado no válido", "<p>Lo que ha llegado no lo ha firmado el servicio para este caso.</p>", 400)
    case.verified = True
    return RedirectResponse("/caso", status_code=303)


@app.get("/caso")
def state(visitor: Visitor = "") -> HTMLResponse:
    """How far it is."""
    case = case_of(visitor)
    status = agency.status(case.transaction_id)
    told = f"<p>Estado: <strong>{escape(STATES.get(status['state'], status['state']))}</strong></p>"
    if case.verified:
        told += "<p>El resultado está comprobado con la clave del servicio.</p>"
    if status["next_step"]["action"] == "collect":
        told += '<p><a href="/firmado">Descargar el documento firmado</a></p>'
    return page("Su solicitud", told)


@app.get("/firmado")
def signed(visitor: Visitor = "") -> Response:
    """The signed document."""
    content = agency.collect(case_of(visitor).transaction_id, 1)
    headers = {"Content-Disposition": 'attachment; filename="solicitud-firmada.pdf"'}
    return Response(content, media_type="application/pdf", headers=headers)


@app.exception_handler(RubricaProblem)
def refused(_request: Request, problem: Exception) -> HTMLResponse:
    """What the service refused, in its own words."""
    return page("No ha sido posible", f"<p>{escape(str(problem))}</p><p><a href='/'>Volver</a></p>", 409)


@app.exception_handler(404)
def missing(_request: Request, _error: Exception) -> HTMLResponse:
    """Not this visitor's, or not there at all."""
    body = "<p>No hay nada en esta dirección, o ninguna solicitud en este navegador.</p><p><a href='/'>Volver</a></p>"
    return page("No encontrado", body, 404)


def page(title: str, body: str, status: int = 200) -> HTMLResponse:
    """A page of this site."""
    headers = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store"}
    return HTMLResponse(PAGE.format(title=title, body=body), status, headers)


def case_of(visitor: str) -> Case:
    """The visitor's case; nobody else's."""
    if visitor not in cases:
        raise HTTPException(404, "No hay ninguna solicitud en este navegador")
    return cases[visitor]


def pdf(lines: list[str]) -> bytes:
    """A page with some lines of text."""
    shown = (line.translate({ord(sign): f"\\{sign}" for sign in "\\()"}) for line in lines)
    text = "BT /F 12 Tf 16 TL 72 760 Td " + " ".join(f"({line}) Tj T*" for line in shown) + " ET"
    content = text.encode("cp1252", "replace")
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 4 0 R>>>>/Contents 5 0 R>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
    )
    made, places = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), b"0000000000 65535 f \n"
    for number, body in enumerate(objects, 1):
        places += b"%010d 00000 n \n" % len(made)
        made += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(made)
    made += b"xref\n0 6\n%strailer\n<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (places, start)
    return bytes(made)


if __name__ == "__main__":
    inherited = os.environ.get("AGENCY_LISTEN_FD")
    listening = socket.socket(fileno=int(inherited)) if inherited else None
    server = uvicorn.Server(uvicorn.Config(app, port=int(os.environ.get("AGENCY_PORT", "8000")), access_log=False))
    server.run([listening] if listening else None)
