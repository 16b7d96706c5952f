"""What can go wrong below the core."""


class HSMError(Exception):
    """The token did not do what was asked."""


class HSMBusy(HSMError):
    """The queue is full; nothing was done, try again later."""


class HSMTimeout(HSMError):
    """The deadline passed; the operation may have happened inside, its result is dropped."""


class HSMWorkerLost(HSMError):
    """The worker died during the operation; its result, if any, is dropped."""


class HSMRefused(HSMError):
    """The token refused these inputs: a tampered blob, a wrong wrapping key, a missing key."""


class FaultySignature(HSMError):
    """The token's signature does not verify under its public key: never released."""


class InventoryMismatch(HSMError):
    """The token holds a key outside its inventory, lacks one, or an attribute is off."""


class PINRefused(HSMError):
    """The token refused the PIN. One attempt was made and none follows: real tokens lock themselves after a few."""


class TokenUnavailable(HSMError):
    """The module, the token or its PIN file is not there."""


class SessionLost(HSMError):
    """The session with the token is gone or not to be trusted; whoever held it must connect anew."""


def from_child(kind: str, message: str) -> Exception:
    """The error that a child process met and told of by the name of its class."""
    if kind == ValueError.__name__:
        return ValueError(message)
    known = {error.__name__: error for error in HSMError.__subclasses__()}
    return known.get(kind, HSMError)(message)
