"""HTTP face of the inbox: takes messages as an SMS gateway does, shows them to people and to tests."""

import asyncio
import hashlib
from base64 import b64encode
from html import escape
from typing import Annotated

from fastapi import FastAPI, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from authn.messages.inbox.store import InboxStore, Received

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}"
    "li{margin:1rem 0;padding:1rem;border:1px solid GrayText;border-radius:.5rem;list-style:none}"
    "ol{padding:0}pre{font:inherit;white-space:pre-wrap;overflow-wrap:anywhere;margin:.5rem 0 0}"
)
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
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
    async def as_page() -> Response:
        return Response(_page(store.messages()), media_type="text/html", headers=_HEADERS)

    return app


def _page(messages: list[Received]) -> str:
    shown = "".join(
        f"<li><strong>{escape(message.to)}</strong> <time>{escape(message.time)}</time>"
        f"<pre>{escape(message.text)}</pre></li>"
        for message in reversed(messages)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>Inbox</title><style>{_STYLE}</style></head><body><main><h1>Inbox</h1>'
        "<p>Development only: every SMS that the service sent, newest first.</p>"
        f"{f'<ol>{shown}</ol>' if shown else '<p>Nothing yet.</p>'}</main></body></html>"
    )
