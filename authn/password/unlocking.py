"""An operator ends a block: whoever was locked out by a stranger's guesses keeps password and key."""

from sqlalchemy.ext.asyncio import AsyncEngine

from audit.log import Event, EventTag, Log
from authn.password.factor import PasswordFactors
from authn.registration.citizens import CitizenRegister, normalise_nif
from domain.errors import NotFound


class Unlocking:
    """The operation behind ``rubrica unlock``."""

    def __init__(self, engine: AsyncEngine, register: CitizenRegister, factors: PasswordFactors, log: Log) -> None:
        self._engine = engine
        self._register = register
        self._factors = factors
        self._log = log

    async def unlock(self, nif: str) -> None:
        """Forget failed passwords; the block of codes, which is about guesses at a phone, runs its course.

        Raises:
            NotFound: No such citizen, or no password to unlock.
        """
        index = await self._register.nif_index(normalise_nif(nif))
        async with self._engine.begin() as connection:
            citizen = await self._register.find(connection, index)
            if citizen is None or not await self._factors.unlock(connection, citizen.id):
                raise NotFound("there is no citizen with that NIF and a password")
            await self._log.append(connection, Event(tag=EventTag.UNLOCK, pid=citizen.pid))
