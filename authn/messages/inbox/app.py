"""HTTP face of the inbox: takes messages as an SMS gateway does, shows them to people and to tests."""

import asyncio
import hashlib
import re
from base64 import b64encode
from html import escape
from typing import Annotated

from fastapi import FastAPI, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from authn.messages.inbox.store import InboxStore, Received

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}"
    "li{margin:1rem 0;padding:1rem;border:1px solid GrayText;border-radius:.5rem;list-style:none}"
    "ol{padding:0}ol:not(:empty)+p{display:none}[role=status]{font-weight:bold}"
    "pre{font:inherit;white-space:pre-wrap;overflow-wrap:anywhere;margin:.5rem 0 0}"
)
# New messages are put on top and told of; what is being read, copied or focused stays where it is.
_SCRIPT = """
const shown = document.querySelector("ol"), said = document.querySelector("[role=status]");
setInterval(async () => {
  const answer = await fetch("/").catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = [...page.querySelectorAll("ol > li")];
  const more = fresh.slice(0, fresh.length - shown.children.length);
  if (!more.length) return;
  shown.prepend(...more);
  said.textContent = `${said.dataset.new}: ${more.length}`;
}, 3000);
"""
_TEXTS = {
    "es": {
        "title": "Mensajes",
        "about": "Solo para desarrollo: cada SMS que ha enviado el servicio, el más reciente primero.",
        "again": "Mirar otra vez",
        "none": "Todavía no hay ninguno.",
        "new": "Mensajes nuevos",
    },
    "en": {
        "title": "Inbox",
        "about": "Development only: every SMS that the service sent, newest first.",
        "again": "Look again",
        "none": "Nothing yet.",
        "new": "New messages",
    },
}


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
    f"style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class IncomingMessage(BaseModel):
    """One SMS as the core's HTTP gateway sends it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(min_length=1, max_length=128)]
    """The same id again is the same message."""
    to: Annotated[str, Field(pattern=r"^\+[0-9]{6,15}$")]
    text: Annotated[str, Field(min_length=1, max_length=2000)]


class StoredMessage(BaseModel):
    """One SMS as it was received."""

    id: str
    to: str
    text: str
    time: str


def create_app(store: InboxStore) -> FastAPI:
    """The inbox over one store."""
    app = FastAPI(title="Rúbrica development inbox", docs_url=None, redoc_url=None, openapi_url=None)
    # Serial, because the store is for one writer; in a thread, because it waits for the disk.
    writing = asyncio.Lock()

    @app.post("/messages")
    async def receive(message: IncomingMessage) -> Response:
        async with writing:
            added = await asyncio.to_thread(store.add, message.id, message.to, message.text)
        return Response(status_code=201 if added else 200, headers=_HEADERS)

    @app.get("/messages.json")
    async def as_json(response: Response, to: Annotated[str | None, Query()] = None) -> list[StoredMessage]:
        response.headers.update(_HEADERS)
        return [
            StoredMessage(id=message.id, to=message.to, text=message.text, time=message.time)
            for message in store.messages(to)
        ]

    @app.get("/")
    async def as_page(accept_language: Annotated[str, Header()] = "") -> Response:
        asked = re.findall(r"\b(?:es|en)\b", accept_language)
        language = asked[0] if asked else "es"
        return Response(_page(store.messages(), language), media_type="text/html", headers=_HEADERS)

    return app


def _page(messages: list[Received], language: str) -> str:
    texts = _TEXTS[language]
    shown = "".join(
        f"<li><strong>{escape(message.to)}</strong> <time>{escape(message.time)}</time>"
        f"<pre>{escape(message.text)}</pre></li>"
        for message in reversed(messages)
    )
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{texts['title']}</title><style>{_STYLE}</style></head><body><main><h1>{texts['title']}</h1>"
        f'<p>{texts["about"]} <a href="/">{texts["again"]}</a></p><p role="status" data-new="{texts["new"]}"></p>'
        f"<ol>{shown}</ol><p>{texts['none']}</p></main><script>{_SCRIPT}</script></body></html>"
    )
