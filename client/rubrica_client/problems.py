"""Problem details (RFC 9457) as an exception, and the one way in which requests are sent."""

import time
from collections.abc import Callable
from typing import Any

import httpx

TRIES = 4
LONGEST_PAUSE_SECONDS = 5.0
_UNAVAILABLE = 503


class RubricaProblem(Exception):
    """The service refused, or could not do, what was asked."""

    def __init__(self, code: str, detail: str, status: int, retry_after: int | None = None) -> None:
        """Takes the parts of the service's answer.

        Args:
            code: Stable, made for programs.
            detail: For people.
            status: HTTP status code; 0 where there was no answer at all.
            retry_after: Seconds to wait, where the service said so.
        """
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retry_after = retry_after


def send(make: Callable[[], httpx.Response], *, tries: int = TRIES, sleep: Callable[[float], None] = time.sleep) -> Any:
    """Send a request that may safely be repeated; no answer and 503 are tried again.

    Args:
        make: Builds and sends it anew, so that an authorisation that serves once is a fresh one.
        tries: How often at most.
        sleep: Waits.

    Returns:
        The ``httpx.Response``, which is a success or a redirection.

    Raises:
        RubricaProblem: Refused, or still unavailable.
    """
    pause = 0.25
    for left in reversed(range(tries)):
        try:
            response = make()
        except httpx.TransportError as error:
            # The exception would show the request, whose body or address may open something.
            problem = RubricaProblem("no_answer", type(error).__name__, 0)
        else:
            if response.status_code < httpx.codes.BAD_REQUEST:
                return response
            response.read()
            problem = problem_of(response)
            if response.status_code != _UNAVAILABLE:
                raise problem
        if not left:
            raise problem
        sleep(min(problem.retry_after or pause, LONGEST_PAUSE_SECONDS))
        pause *= 2
    raise ValueError("at least one try is needed")


def problem_of(response: httpx.Response) -> RubricaProblem:
    """The problem that an answer tells of; something generic where it is none of ours."""
    waits = response.headers.get("retry-after", "")
    retry_after = int(waits) if waits.isdecimal() else None
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    code = str(body.get("code", "unknown"))
    detail = str(body.get("detail", response.reason_phrase))
    return RubricaProblem(code, detail, response.status_code, retry_after)
