"""The parts of the PKI put together, and the one thread in which they run."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Self, TypeVar

from certs.pki.authority import Authority
from certs.pki.keys import Token, TokenKey
from certs.pki.ocsp import OCSPResponder
from certs.pki.storage import Storage, open_engine
from certs.pki.tsa import TimestampAuthority
from certs.profiles import PublicAddresses
from domain.clock import Clock
from hsm.keys import SigningKey

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PKI:
    """Everything that signs; use it from one thread only."""

    authority: Authority
    ocsp: OCSPResponder
    tsa: TimestampAuthority

    @classmethod
    def open(cls, token: Token, database_url: str, public_url: str, clock: Clock) -> Self:
        """Open the store, making certificates and first CRLs if it is new.

        Args:
            token: With the keys ROOT, CA, OCSP and TSA.
            database_url: ``sqlite:///…``.
            public_url: Start of the addresses that go into certificates; the same for ever.
            clock: Time of everything that is signed.

        Raises:
            PublicURLChanged: The store was made for another ``public_url``.
            ValueError: The store was made with other keys.
        """
        storage = Storage(open_engine(database_url))
        authority = Authority(token, storage, PublicAddresses(public_url), clock)
        return cls(
            authority,
            OCSPResponder(authority, TokenKey(token, SigningKey.PKI_OCSP), clock),
            TimestampAuthority(authority, TokenKey(token, SigningKey.PKI_TSA), storage, clock),
        )


class TokenThread:
    """One thread that makes every call to the token and the store.

    SoftHSM corrupts its memory when python-pkcs11 calls it from two threads, and what runs in order needs no locks.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="token")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``call`` there and wait for it."""
        return await asyncio.wrap_future(self._executor.submit(call, *args, **kwargs))

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._executor.shutdown()
