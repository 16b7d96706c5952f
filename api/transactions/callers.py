"""Who calls, whichever face was called: an agency is proved by the core, and its grants stay young."""

from api.transactions.service import Transactions
from authn.client import AuthenticatedClient, CallersClient
from domain.errors import CallerRefused
from domain.jws import ASSERTION_LIMIT_CHARACTERS

_SCHEME = "bearer "


def bearer(authorization: str | None) -> str:
    """The bearer token.

    Raises:
        CallerRefused: Another scheme, or none, or longer than any that the core would look at.
    """
    if authorization is None or not authorization.lower().startswith(_SCHEME):
        raise CallerRefused("a bearer token is needed")
    token = authorization[len(_SCHEME) :].strip()
    if len(token) > ASSERTION_LIMIT_CHARACTERS:
        raise CallerRefused("the bearer token is too long")
    return token


def is_assertion(token: str) -> bool:
    """Whether it looks like a compact JWS; link tokens have no dots."""
    return "." in token


async def agency(
    transactions: Transactions, callers: CallersClient, assertion: str, transaction_id: str
) -> AuthenticatedClient:
    """The client that ``assertion`` proves, for something it does with a transaction that exists.

    Args:
        transactions: Keeps the grant, where the one it holds has become old.
        callers: The core, which checks the proof.
        assertion: A private_key_jwt (RFC 7523), used up by this.
        transaction_id: As the caller has it; whose it is stays to be checked.

    Raises:
        CallerRefused: The proof does not hold.
    """
    wanted = transaction_id if await transactions.wants_grant(transaction_id) else ""
    client = await callers.authenticate_client(assertion, transaction_id=wanted)
    if wanted:
        await transactions.renew_grant(transaction_id, client)
    return client
