"""Is it signed, by whom, when, and was it changed since: for anybody's document."""

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.look.pages import PeopleRoute, look_of
from api.problems import STATUSES
from api.turns import asker_of
from api.web.forms import files, octets
from api.web.services import Provided, Web
from documents.model import ValidationReport
from domain.digests import Digest
from domain.errors import NotFound, RubricaError

CHECK_PATH = "/validate"

router = APIRouter(route_class=PeopleRoute, include_in_schema=False)
nowhere = APIRouter(route_class=PeopleRoute, include_in_schema=False)


@router.get(CHECK_PATH)
async def choose(request: Request, provided: Provided) -> HTMLResponse:
    """Which file."""
    return _form(request, provided, [])


@router.post(CHECK_PATH)
async def judge(request: Request, provided: Provided) -> HTMLResponse:
    """The report; the file is not kept."""
    look = look_of(request.app)
    limit_bytes = provided.transactions.limits.agency_bytes
    kept = []
    try:
        async with files(request, each_bytes=limit_bytes, most=2) as chosen:
            signed = chosen.get("document", [])
            if not signed:
                return _form(request, provided, [(look.words(request)("Choose a file first."), "")], status=400)
            stored = await provided.store.write(octets(signed[0]), limit_bytes=limit_bytes)
            kept.append(stored.stored_id)
            content = None
            for file in chosen.get("content", []):
                beside = await provided.store.write(octets(file), limit_bytes=limit_bytes)
                kept.append(beside.stored_id)
                content = beside.digest
        path = provided.store.path(stored.stored_id)
        return await report_page(request, provided, path, signed[0].filename or "?", back=CHECK_PATH, content=content)
    except RubricaError as error:
        return _form(request, provided, [("", look.explained(request, error))], status=STATUSES[error.code])
    finally:
        await provided.store.delete(*kept)


@nowhere.get("/{path:path}")
async def nothing(path: str) -> HTMLResponse:
    """An address that is none of ours."""
    raise NotFound(f"there is no page of {len(path)} characters here")


async def report_page(
    request: Request, provided: Web, path: Path, name: str, *, back: str, content: Digest | None = None
) -> HTMLResponse:
    """What validation says of the file at ``path``.

    Args:
        request: Of whoever looks.
        provided: What pages work with.
        path: The file.
        name: What it is called.
        back: Where one came from.
        content: SHA-256 of the file beside a detached signature.
    """
    async with provided.turns.turn(asker_of(request)):
        report = await provided.viewer.validate(path, provided.trust, provided.clock.now(), provided.fetch, content)
    values = {"name": name, "report": report, "word": _word(report), "back": back}
    return look_of(request.app).page(request, "report.html", values)


def _word(report: ValidationReport) -> str:
    """What stands above everything else."""
    if not report.signatures:
        return "none"
    if any(signature.sub_indication == "SIGNED_DATA_NOT_FOUND" for signature in report.signatures):
        return "beside"
    if report.indication == "TOTAL-FAILED":
        return "failed"
    # Further signatures count as changes for those before them, so the last one speaks for the file.
    if report.signatures[-1].changed_since:
        return "changed"
    if report.indication != "TOTAL-PASSED":
        return "unknown"
    return "uncovered" if report.signatures[-1].changed_since is None else "passed"


def _form(request: Request, provided: Web, errors: list[tuple[str, str]], status: int = 200) -> HTMLResponse:
    values = {"errors": errors, "largest": provided.transactions.limits.agency_bytes}
    return look_of(request.app).page(request, "validate.html", values, status=status)
