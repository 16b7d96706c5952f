"""All pages of the edge, in the order in which addresses are looked up."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from api.look.pages import Look
from api.web import area, check, sign, verify
from api.web.services import Web

UPLOADS = frozenset({sign.UPLOAD_PATH, check.CHECK_PATH})
"""Where documents are posted."""


def faces(look: Look) -> Sequence[APIRouter]:
    """What is asked before the endpoints for programs."""
    return (look.assets.router(), sign.anybody, sign.router, sign.pictures, check.router, verify.router, area.router)


def install(app: FastAPI, web: Web, look: Look) -> None:
    """Give the application what pages work with, and a page for addresses that nobody knows."""
    app.state.web, app.state.look = web, look
    app.include_router(check.nowhere)
