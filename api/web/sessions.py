"""Web sessions of citizens who look at their own area. They are of level low: nothing that signs asks for one.

What proves what:

* The browser that begins a login draws nothing: the edge gives it a random value in a cookie, and the gate gets that
  value's hash as the nonce. The identity token that comes back is good only beside the cookie, so a link that somebody
  else made logs nobody in, and an address that leaks is of no use elsewhere.
* A nonce is spent by a commit of its own before the token is given to the core, which takes each token once as well.
* The cookie of a session is kept as a hash, and the key by which the core knows the login is sealed: who reads this
  database opens nothing. Who the citizen is, and of which level the login, stands in the core alone.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.transactions.review import Cookie
from api.transactions.seals import Sealer
from api.transactions.tables import metadata
from authn.area_client import AreaClient, AreaShown
from domain import identity
from domain.clock import Clock, to_epoch_seconds
from domain.errors import RequestExpired
from domain.identity import IdentityInvalid
from domain.ids import Randomness

AUDIENCE = "web"
LOGIN_COOKIE = "__Host-rubrica-login"
SESSION_COOKIE = "__Host-rubrica-area"
LOGIN_LIFE = timedelta(minutes=30)
"""Time to get a PIN, or two, at the gate."""
SESSION_LIFE = timedelta(minutes=20)
SECRET_BYTES = 32
SEAL_LABEL = "area"

area_nonces = sa.Table(
    "area_nonces",
    metadata,
    sa.Column("nonce", sa.String(43), primary_key=True),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
)
area_sessions = sa.Table(
    "area_sessions",
    metadata,
    sa.Column("cookie_sha256", sa.LargeBinary(32), primary_key=True),
    sa.Column("key_sealed", sa.LargeBinary, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunLogin:
    """A browser on its way to the gate."""

    nonce: str
    cookie: Cookie = field(repr=False)


class AreaSessions:
    """Begins logins, takes tokens, keeps sessions."""

    def __init__(
        self,
        engine: AsyncEngine,
        sealer: Sealer,
        client: AreaClient,
        clock: Clock,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._sealer = sealer
        self._client = client
        self._clock = clock
        self._randomness = randomness

    def begin(self) -> BegunLogin:
        """The nonce for the gate, and the cookie that it is the hash of; nothing is stored."""
        value = _text(self._randomness(SECRET_BYTES))
        cookie = Cookie(LOGIN_COOKIE, value, int(LOGIN_LIFE.total_seconds()))
        return BegunLogin(nonce=_nonce(value), cookie=cookie)

    async def enter(self, token: str, cookies: Mapping[str, str]) -> Cookie:
        """Take the token that the gate sent this browser back with; gives the cookie of the session.

        Raises:
            RequestExpired: Not a token of the core for this browser and login, or over, or used before.
        """
        value = cookies.get(LOGIN_COOKIE, "")
        if not value:
            raise RequestExpired("this login was begun in another browser, or too long ago")
        nonce = _nonce(value)
        key = await self._client.token_key()
        try:
            identity.verify(token, key, audience=AUDIENCE, nonce=nonce, now=self._clock.now())
        except IdentityInvalid:
            raise RequestExpired("this login is over or belongs to another browser") from None
        async with self._engine.begin() as connection:
            await self._spend(connection, nonce)
        entered = await self._client.enter(token, nonce)
        await self.leave(cookies)
        now = self._clock.now()
        secret = _text(self._randomness(SECRET_BYTES))
        index = _sha256(secret)
        expires = min(entered.expires, now + SESSION_LIFE)
        async with self._engine.begin() as connection:
            await connection.execute(
                sa.insert(area_sessions).values(
                    cookie_sha256=index,
                    key_sealed=self._sealer.seal(SEAL_LABEL, index.hex(), entered.key),
                    expires=to_epoch_seconds(expires),
                )
            )
        return Cookie(SESSION_COOKIE, secret, int((expires - now).total_seconds()))

    async def show(self, cookies: Mapping[str, str]) -> AreaShown | None:
        """What this browser's citizen may see; ``None`` where nobody is logged in.

        Raises:
            RequestExpired: There was a session, and it is over here or in the core.
        """
        if SESSION_COOKIE not in cookies:
            return None
        key = await self._key(cookies)
        if key is None:
            raise RequestExpired("this session is over")
        try:
            return await self._client.show(key)
        except RequestExpired:
            await self._forget(cookies)
            raise

    async def leave(self, cookies: Mapping[str, str]) -> None:
        """End this browser's session, here and in the core; nothing happens where there is none."""
        key = await self._key(cookies)
        await self._forget(cookies)
        if key is not None:
            await self._client.leave(key)

    async def purge(self) -> None:
        """Remove what is over; a nonce is kept for longer than any token with it is good."""
        now = to_epoch_seconds(self._clock.now())
        async with self._engine.begin() as connection:
            for table in (area_sessions, area_nonces):
                await connection.execute(sa.delete(table).where(table.c.expires <= now))

    async def _spend(self, connection: AsyncConnection, nonce: str) -> None:
        expires = to_epoch_seconds(self._clock.now() + LOGIN_LIFE)
        try:
            await connection.execute(sa.insert(area_nonces).values(nonce=nonce, expires=expires))
        except sa.exc.IntegrityError:
            raise RequestExpired("this login was used before") from None

    async def _key(self, cookies: Mapping[str, str]) -> bytes | None:
        index = _sha256(cookies.get(SESSION_COOKIE, ""))
        async with self._engine.connect() as connection:
            found = await connection.execute(
                sa.select(area_sessions.c.key_sealed).where(
                    area_sessions.c.cookie_sha256 == index,
                    area_sessions.c.expires > to_epoch_seconds(self._clock.now()),
                )
            )
            sealed = found.scalar_one_or_none()
        return None if sealed is None else self._sealer.open(SEAL_LABEL, index.hex(), sealed)

    async def _forget(self, cookies: Mapping[str, str]) -> None:
        index = _sha256(cookies.get(SESSION_COOKIE, ""))
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(area_sessions).where(area_sessions.c.cookie_sha256 == index))


def ended(name: str) -> str:
    """A ``Set-Cookie`` that takes the cookie of that name away."""
    return Cookie(name, "", 0).header


def _nonce(value: str) -> str:
    return _text(_sha256(value))


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
