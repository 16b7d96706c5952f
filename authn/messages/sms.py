"""How an SMS leaves: a port, and an adapter for any gateway that takes one HTTP request a message."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import httpx

Template: TypeAlias = "str | int | float | bool | Sequence[Template] | Mapping[str, Template] | None"

ANSWER_LIMIT_BYTES = 64 * 1024
_PLACE = re.compile(r"\{([a-z]+)\}")
_PLACES = {"id", "phone", "text", "secret"}


class SMSNotAccepted(Exception):
    """The gateway did not take the message, or we cannot know; says why without number, text or secret."""


class SMSGateway(Protocol):
    """Takes messages for delivery."""

    async def hand_over(self, message_id: str, phone: str, text: str, *, deadline_seconds: float) -> None:
        """Hand over one SMS; a message id that comes again is the same message and is to be sent once.

        Raises:
            SMSNotAccepted: Not taken, or no answer before the deadline; trying again later may help.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPGatewayConfig:
    """One provider's HTTP interface. ``{id}``, ``{phone}``, ``{text}`` and ``{secret}`` are filled into values."""

    url: str
    """Fixed: nothing is filled in here, because addresses end up in logs."""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Template = None
    """Body as JSON; exactly one of ``json`` and ``form``."""
    form: Mapping[str, str] | None = None
    """Body as ``application/x-www-form-urlencoded``."""
    secret_file: Path | None = None
    """What ``{secret}`` stands for; white space at its end is dropped."""
    unix_socket: Path | None = None
    """Connect here instead of to the address's host."""
    accepted_statuses: frozenset[int] = frozenset({200, 201, 202})
    accepted_pattern: str | None = None
    """A regular expression that the answer must contain, for gateways that answer 200 to everything."""

    def __post_init__(self) -> None:
        if (self.json is None) == (self.form is None):
            raise ValueError("an SMS gateway takes either a JSON or a form body")
        if self.method not in {"POST", "PUT"}:
            raise ValueError("an SMS gateway is spoken to with POST or PUT")
        if unknown := set(_places([self.headers, self.json, self.form])) - _PLACES:
            raise ValueError(f"an SMS gateway is given {', '.join(sorted(_PLACES))}, not {', '.join(sorted(unknown))}")
        if {"phone", "text"}.intersection(_places(self.headers)):
            raise ValueError("number and text belong into the body: headers end up in logs")


class HTTPSMSGateway:
    """``SMSGateway`` over HTTP; every message is one request."""

    def __init__(self, config: HTTPGatewayConfig) -> None:
        self._config = config
        self._secret = "" if config.secret_file is None else config.secret_file.read_text().rstrip()
        if not self._secret.isascii():
            raise ValueError("the gateway's secret must be ASCII")
        self._accepted = None if config.accepted_pattern is None else re.compile(config.accepted_pattern)
        socket = None if config.unix_socket is None else str(config.unix_socket)
        # No proxy from the environment: numbers and codes go to the address that was configured and nowhere else.
        self._client = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket), trust_env=False)

    def __repr__(self) -> str:
        return f"HTTPSMSGateway({self._config.url})"

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def hand_over(self, message_id: str, phone: str, text: str, *, deadline_seconds: float) -> None:
        """Hand over one SMS.

        Raises:
            SMSNotAccepted: Not taken, or no answer before the deadline.
        """
        values = {"id": message_id, "phone": phone, "text": text, "secret": self._secret}
        config = self._config
        try:
            async with asyncio.timeout(deadline_seconds):
                request = self._client.build_request(
                    config.method,
                    config.url,
                    headers=_fill_fields(config.headers, values),
                    json=None if config.json is None else _fill(config.json, values),
                    data=None if config.form is None else _fill_fields(config.form, values),
                    timeout=None,
                )
                response = await self._client.send(request, stream=True)
                try:
                    answer = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise SMSNotAccepted("no answer before the deadline") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # ``from None``: an error of the library may hold the request with its body.
            raise SMSNotAccepted(f"the gateway cannot be reached ({type(error).__name__})") from None
        if response.status_code not in config.accepted_statuses:
            raise SMSNotAccepted(f"the gateway answered {response.status_code}")
        if self._accepted is not None and self._accepted.search(answer) is None:
            raise SMSNotAccepted("the gateway's answer does not say that it took the message")


async def _read(response: httpx.Response) -> str:
    answer = b""
    async for chunk in response.aiter_bytes():
        answer += chunk
        if len(answer) > ANSWER_LIMIT_BYTES:
            raise SMSNotAccepted("the gateway's answer is too long")
    return answer.decode(errors="replace")


def _places(template: Template) -> Iterator[str]:
    match template:
        case str():
            yield from _PLACE.findall(template)
        case Mapping():
            yield from _places(list(template.values()))
        case Sequence():
            for inner in template:
                yield from _places(inner)


def _fill(template: Template, values: Mapping[str, str]) -> Template:
    match template:
        case str():
            return _fill_text(template, values)
        case Mapping():
            return {name: _fill(inner, values) for name, inner in template.items()}
        case Sequence():
            return [_fill(inner, values) for inner in template]
        case _:
            return template


def _fill_fields(template: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    return {name: _fill_text(value, values) for name, value in template.items()}


def _fill_text(template: str, values: Mapping[str, str]) -> str:
    # One pass: a text that contains "{secret}" stays as it is.
    return _PLACE.sub(lambda place: values[place[1]], template)
