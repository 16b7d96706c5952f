"""Citizens who do not exist, entered by an officer as at a desk: for ``rubrica demo``, and for newcomers to ``up``."""

import json
import os
import secrets
import string
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from audit.client import AuditorClient
from audit.entries import Entry, Filter
from audit.log import EventTag
from authn.client import call
from authn.officer_client import OfficerKey, OfficersClient, OnPaper
from domain.assurance import RegistrationLevel
from domain.clock import Clock, SystemClock
from domain.statements import CONDITIONS_VERSION
from rubrica.state import Running, caller_channel, operator_channel, write_atomically

if TYPE_CHECKING:
    import grpc

_NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
"""Real Decreto 1553/2005 art. 11: the letter is the number modulo 23."""
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Citizen:
    """Somebody who does not exist."""

    nif: str = field(repr=False)
    phone: str = field(repr=False)
    email: str = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def draw(cls) -> "Citizen":
        """A new one with a valid NIF and a valid mobile number."""
        number = secrets.randbelow(10**8)
        return cls(
            nif=f"{number:08d}{_NIF_LETTERS[number % 23]}",
            phone=f"+346{secrets.randbelow(10**8):08d}",
            email=f"ana.{secrets.token_hex(4)}@example.org",
            password=secrets.token_urlsafe(18),
        )


def new_officer_id() -> str:
    """Letters only: an id with a long number in it could be somebody's."""
    return "demo-" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))


async def register(
    channel: "grpc.aio.Channel",
    citizen: Citizen,
    level: RegistrationLevel = RegistrationLevel.ADVANCED,
    *,
    officer_id: str = "",
) -> OnPaper:
    """Enter a citizen as at a desk, by an officer who is there for this one registration.

    Args:
        channel: To the operator's socket.
        citizen: Whom.
        level: Of the registration.
        officer_id: The officer's; drawn where it is empty.

    Raises:
        RubricaError: As ``OfficersClient.register``.
    """
    officers, officer = OfficersClient(channel, SystemClock()), OfficerKey.draw(officer_id or new_officer_id())
    await officers.add(officer, role="registrar", nif=Citizen.draw().nif)
    fields = {
        "nif": citizen.nif,
        "given_name": "Ana",
        "first_surname": "Ejemplo",
        "second_surname": "Demostración",
        "phone": citizen.phone,
        "email": citizen.email,
        "level": level.value,
        "proof": "demonstration",
        "language": "es",
        "conditions": CONDITIONS_VERSION,
    }
    try:
        return await officers.register(officer, fields)
    finally:
        await officers.end(officer.officer_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """The citizen of one state whom a person plays who tries the service: registered, and the rest is theirs to do."""

    folder: Path
    """Closed to others; holds the papers, and ``citizen.json``, from which the same citizen comes again."""
    nif: str = field(repr=False)
    phone: str = field(repr=False)
    email: str = field(repr=False)
    activation_code: str = field(repr=False)
    officer: str
    """Who registered them, which is how the log finds them: it holds no name."""
    registered: str
    """Not before; ISO 8601."""

    @property
    def receipt(self) -> Path:
        """The paper with the activation code, as handed over at the desk."""
        return self.folder / "receipt.pdf"

    @classmethod
    def read(cls, state: Path) -> Self | None:
        """The one who was registered in this state, if there is one."""
        folder = state / "newcomer"
        try:
            return cls(folder=folder, **json.loads((folder / "citizen.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    @classmethod
    async def register(cls, running: Running, clock: Clock) -> Self:
        """Have one entered into the register of a running service.

        Raises:
            RubricaError: The core refused, or could not.
            OSError: The papers cannot be kept.
        """
        folder = running.state / "newcomer"
        folder.mkdir(mode=0o700, exist_ok=True)
        citizen, officer, registered = Citizen.draw(), new_officer_id(), clock.now().isoformat()
        async with operator_channel(running.operator_socket) as channel:
            on_paper = await register(channel, citizen, officer_id=officer)
        made = cls(
            folder=folder,
            nif=citizen.nif,
            phone=citizen.phone,
            email=citizen.email,
            activation_code=on_paper.activation_code,
            officer=officer,
            registered=registered,
        )
        _write(made.receipt, on_paper.receipt)
        _write(folder / "acceptance.pdf", on_paper.acceptance)
        # Last: whoever is stopped before gets another citizen next time.
        fields = {name: value for name, value in asdict(made).items() if name != "folder"}
        write_atomically(folder / "citizen.json", json.dumps(fields, indent=2) + "\n", mode=0o600)
        return made

    async def activated(self, running: Running) -> datetime | None:
        """When the password was set, as the log of the service tells; ``None`` if it was not.

        Raises:
            RubricaError: The core does not say.
        """
        socket = running.operator_socket.parent.parent / "auditor" / "core.sock"
        since = datetime.fromisoformat(self.registered)
        async with caller_channel("auditor", socket) as channel:
            auditor = AuditorClient(channel, call)
            enrolments = Filter(since=since, types=frozenset({EventTag.ENROL}))
            enrolled = await _first(auditor, enrolments, officer=self.officer)
            if enrolled is None or enrolled.leaf.pid is None:
                return None
            changes = Filter(pid=enrolled.leaf.pid, since=since, types=frozenset({EventTag.PW_CHANGE}))
            changed = await _first(auditor, changes)
        return None if changed is None else changed.leaf.time


async def _first(auditor: AuditorClient, wanted: Filter, *, officer: str = "") -> Entry | None:
    after, at_end = 0, False
    while not at_end:
        page = await auditor.page(wanted, after=after, limit=_PAGE)
        for entry in page.entries:
            if entry.leaf.text("officer") == officer:
                return entry
        after, at_end = page.reached, page.at_end
    return None


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
