"""Makes pages: templates with a language each, headers, and errors that people can read."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from gettext import NullTranslations
from pathlib import Path
from typing import Any

import structlog
from babel.dates import format_datetime
from babel.numbers import format_decimal
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import URL
from starlette.routing import Match
from starlette.types import Scope

from api.look.assets import Assets
from api.look.languages import NAMES, PARAMETER, SOURCE, catalogue, language_of
from api.look.sentences import sentence
from api.problems import STATUSES
from domain.errors import MalformedRequest, RubricaError
from domain.ids import new_id

_FOLDER = Path(__file__).parent
_MEBIBYTE = 1024 * 1024
_FINAL = frozenset({"not_found", "malformed_request", "request_expired"})
"""Asked for again, these are refused again."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """Words of one request's language, for what code says rather than templates."""

    language: str
    translations: NullTranslations

    def __call__(self, text: str) -> str:
        """``text`` in this language."""
        return self.translations.gettext(text) if text else ""

    def many(self, one: str, more: str, number: int) -> str:
        """The right one of two texts for a number."""
        return self.translations.ngettext(one, more, number) % {"num": number}


class Look:
    """The pages of one origin."""

    def __init__(self, folder: Path, *, policy: str, home: str) -> None:
        """Read templates and assets.

        Args:
            folder: Holds ``templates/`` and, where the origin has scripts, ``static/``.
            policy: Content-Security-Policy of its pages.
            home: Where the name of the service leads.
        """
        static = [path for path in (_FOLDER / "static", folder / "static") if path.is_dir()]
        self.assets = Assets(*static)
        self._headers = {"Content-Security-Policy": policy, "Cross-Origin-Opener-Policy": "same-origin"}
        self._home = home
        self._environments = {language: self._environment(language, folder) for language in NAMES}

    def words(self, request: Request) -> Page:
        """The language of a request."""
        language = language_of(request)
        return Page(language, catalogue(language))

    def page(
        self,
        request: Request,
        template: str,
        values: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
        address: str = "",
    ) -> HTMLResponse:
        """A template as an answer; where a form was sent, ``address`` has in its query what shows it again."""
        language = language_of(request)
        url = URL(address) if address else request.url
        switches = {
            # A query alone leads to the same address: a path that begins with // would lead to another host.
            name: f"?{url.include_query_params(**{PARAMETER: name}).query}"
            for name in NAMES
        }
        text = (
            self._environments[language]
            .get_template(template)
            .render({**(values or {}), "switches": switches, "names": NAMES})
        )
        return HTMLResponse(text, status, headers=self._headers)

    def failure(self, request: Request, error: RubricaError, *, back: str = "", said: str = "") -> HTMLResponse:
        """An error as a page that says what to do next.

        Args:
            request: What was asked for.
            error: What went wrong.
            back: Where to go on, if that is known.
            said: What to say, where more is known than the error's code.
        """
        event = new_id()
        status = STATUSES[error.code]
        _log.info("refused", problem=error.code, problem_event=event, status=status)
        again = request.method == "GET" and error.code not in _FINAL
        values = {"sentence": said or self.explained(request, error), "event": event, "again": again, "back": back}
        answer = self.page(request, "error.html", values, status=status)
        if error.retry_after_seconds is not None:
            answer.headers["Retry-After"] = str(error.retry_after_seconds)
        return answer

    def explained(self, request: Request, error: RubricaError) -> str:
        """What people read of an error: the detail where it is about their document, else a sentence for its code."""
        words = self.words(request)
        if error.code == "unsupported_document":
            # Details are in English; in another language only those of the catalogue can be shown.
            detail = words(error.public_detail)
            if words.language == SOURCE or detail != error.public_detail:
                return detail[:1].upper() + detail[1:] + "."
        return sentence(error.code, words)

    def fault(self, request: Request) -> HTMLResponse:
        """A page for what nobody expected; call it while the exception is handled."""
        event = new_id()
        _log.exception("unexpected fault", problem_event=event)
        values = {
            "sentence": sentence("", self.words(request)),
            "event": event,
            "again": request.method == "GET",
            "back": "",
        }
        return self.page(request, "error.html", values, status=500)

    def _environment(self, language: str, folder: Path) -> Environment:
        loader = ChoiceLoader([FileSystemLoader(folder / "templates"), FileSystemLoader(_FOLDER / "templates")])
        environment = Environment(
            loader=loader,
            autoescape=True,
            undefined=StrictUndefined,
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.policies["ext.i18n.trimmed"] = True
        environment.install_gettext_translations(catalogue(language), newstyle=True)  # type: ignore[attr-defined]
        environment.globals.update(language=language, asset=self.assets.__getitem__, home=self._home)

        def moment(value: datetime) -> str:
            return f"{format_datetime(value, 'long', locale=language)}"

        def size(octets: int) -> str:
            if octets < _MEBIBYTE:
                return f"{format_decimal(max(1, round(octets / 1024)), locale=language)} KB"
            return f"{format_decimal(round(octets / _MEBIBYTE, 1), locale=language)} MB"

        environment.filters.update(moment=moment, size=size)
        return environment


def look_of(app: FastAPI) -> Look:
    """The pages of an application."""
    found: Look = app.state.look
    return found


class PeopleRoute(APIRoute):
    """A route for browsers that show pages: others, who ask for JSON, go on to the next one.

    What goes wrong in it becomes a page.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As the base class, for those who take HTML."""
        accepted = next((value for name, value in scope.get("headers", ()) if name == b"accept"), b"")
        if scope["type"] != "http" or not self.takes_page(accepted):
            return Match.NONE, {}
        match, child = super().matches(scope)
        # Another method of this path may be another route's.
        return (match, child) if match is Match.FULL else (Match.NONE, {})

    def takes_page(self, accepted: bytes) -> bool:
        """Whether whoever sent this ``Accept`` shows pages."""
        return b"text/html" in accepted

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, and pages for its errors."""
        serve = super().get_route_handler()

        async def serving(request: Request) -> Response:
            look = look_of(request.app)
            try:
                return await serve(request)
            except RubricaError as error:
                return look.failure(request, error)
            except RequestValidationError:
                return look.failure(request, MalformedRequest("the address or the form is not of the right shape"))
            except Exception:  # noqa: BLE001 - recorded with its trace; people get a page
                return look.fault(request)

        return serving


class FrontRoute(PeopleRoute):
    """A page at an address that has nothing for programs: for everybody but those who ask for JSON alone."""

    def takes_page(self, accepted: bytes) -> bool:
        """Also where nothing is said, or everything is taken."""
        return super().takes_page(accepted) or b"json" not in accepted
