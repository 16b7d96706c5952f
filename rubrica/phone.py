"""The citizen's telephone in development: reads what the service sent out."""

import re
import time

import httpx

WAIT_SECONDS = 30.0
_ORIGIN_LINE = re.compile(r"^@\S+ #([0-9A-Z]{6,8})$", re.MULTILINE)
"""The last line of an SMS with a code: "Origin-bound one-time codes delivered via SMS" (WICG)."""


class NoMessage(Exception):
    """No SMS with that reference came in time."""


class Phone:
    """One number at the development inbox."""

    def __init__(self, inbox_url: str, number: str) -> None:
        """``inbox_url`` is where the inbox listens, ``number`` in E.164."""
        self._url = f"{inbox_url}/messages.json"
        self._number = number

    def code(self, reference: str, *, wait_seconds: float = WAIT_SECONDS) -> str:
        """The one-time code of the SMS that carries ``reference``, as a careful citizen compares it.

        Raises:
            NoMessage: None came in time.
        """
        ends = time.monotonic() + wait_seconds
        with httpx.Client(trust_env=False) as client:
            while True:
                messages = client.get(self._url, params={"to": self._number}).raise_for_status().json()
                for message in reversed(messages):
                    found = _ORIGIN_LINE.search(message["text"])
                    if found and re.search(rf"\b{reference}\b", message["text"]):
                        return found[1]
                if time.monotonic() > ends:
                    raise NoMessage(f"no SMS with the reference {reference} came within {wait_seconds:.0f} s")
                time.sleep(0.05)
