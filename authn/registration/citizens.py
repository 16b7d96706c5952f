"""The register of citizens: rows, blind indexes, the generation that ends every open approval."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from authn.columns import ColumnCipher
from domain.assurance import RegistrationLevel
from domain.clock import Clock
from domain.ids import CitizenId
from hsm.vault import Vault


def normalise_nif(typed: str) -> str:
    """Upper case, without spaces, dots and hyphens; not checked."""
    return "".join(symbol for symbol in typed.upper() if symbol.isalnum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Citizen:
    """A citizen as registered, personal data opened."""

    id: CitizenId
    pid: bytes
    """Pseudonym in the log: H(K_pid, subject_salt)."""
    nif: str
    given_name: str
    first_surname: str
    second_surname: str
    phone: str
    """E.164."""
    email: str
    level: RegistrationLevel
    generation: int
    """Changes whenever an open approval must die."""
    version: int
    registered: datetime


class CitizenRegister:
    """Finds, adds and changes citizens; every write happens in the caller's transaction."""

    def __init__(self, vault: Vault, columns: ColumnCipher, clock: Clock) -> None:
        raise NotImplementedError

    async def nif_index(self, nif: str) -> bytes:
        """Blind index of a normalised NIF; one HSM call whatever was typed."""
        raise NotImplementedError

    async def find(self, connection: AsyncConnection, nif_index: bytes) -> Citizen | None:
        """The citizen with that index; no HSM call."""
        raise NotImplementedError

    async def get(self, connection: AsyncConnection, citizen_id: CitizenId) -> Citizen | None:
        """The citizen with that id; no HSM call."""
        raise NotImplementedError

    async def bump_generation(self, connection: AsyncConnection, citizen_id: CitizenId) -> int:
        """Raise the generation and give the new one; the caller deletes open capsules and approvals in the same commit."""
        raise NotImplementedError

    async def change_phone(
        self, connection: AsyncConnection, citizen_id: CitizenId, phone: str, phone_index: bytes
    ) -> None:
        """Store another phone (the generation is bumped by the caller).

        Raises:
            AlreadyRegistered: Another citizen holds it.
        """
        raise NotImplementedError
