"""What the phones received: one line of JSON each in a file that only its owner reads."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from domain.clock import Clock

_LINE_BEGINS = b'{"id": '


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One SMS."""

    id: str
    to: str
    """E.164."""
    text: str = field(repr=False)
    time: str
    """When it came, ISO 8601 in UTC."""


class InboxStore:
    """Appends messages, each id once, also across restarts. For one process."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open or make the file; a last line that a crash cut off is dropped.

        Raises:
            ValueError: The file holds something else.
        """
        self._clock = clock
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        length, messages = _parse(path.read_bytes() if path.exists() else b"", path)
        self._messages = {message.id: message for message in messages}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.fchmod(descriptor, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._file.truncate(length)
        self._file.seek(length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, message_id: str, to: str, text: str) -> bool:
        """Keep a message; False if its id was there already (the first one stays)."""
        if message_id in self._messages:
            return False
        received = Received(id=message_id, to=to, text=text, time=self._clock.now().isoformat())
        self._file.write(json.dumps(asdict(received), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._messages[message_id] = received
        return True

    def messages(self, to: str | None = None) -> list[Received]:
        """All messages in the order they came, or those to one phone."""
        return [message for message in self._messages.values() if to in (None, message.to)]


def _parse(stored: bytes, path: Path) -> tuple[int, list[Received]]:
    """Length of the whole lines, and what they say."""
    length = stored.rfind(b"\n") + 1
    cut_off = stored[length:]
    if not cut_off.startswith(_LINE_BEGINS[: len(cut_off)]):
        raise ValueError(f"{path}, last line: not a message of the inbox")
    messages = []
    for number, line in enumerate(stored[:length].splitlines(), start=1):
        try:
            messages.append(Received(**json.loads(line)))
        except (ValueError, TypeError):
            raise ValueError(f"{path}, line {number}: not a message of the inbox") from None
    return length, messages
