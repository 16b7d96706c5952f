"""What keeps a child busy, and what does not; stands in for ``documents.jobs`` in a limited child."""

import time

from documents import wire
from documents.jobs import Channel
from documents.model import FinishedDocument, Inspection, Level

_FOR_EVER_SECONDS = 600


def run(channel: Channel, _descriptor: int) -> None:
    """Whatever anybody may ask takes for ever; the rest is answered at once, unless it is to take as long."""
    job = channel.receive()
    if job["arguments"].get("for_ever") or job["name"] in {"validate", "outline", "preview"}:
        time.sleep(_FOR_EVER_SECONDS)
    elif job["name"] == "inspect":
        channel.send({"result": wire.to_plain(Inspection(1, 0, encrypted=False, size_bytes=1))})
    else:
        channel.send({"result": wire.to_plain(FinishedDocument(Level.B_T, 1))})
