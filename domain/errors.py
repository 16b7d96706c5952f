"""The tree of errors: one stable code each, a detail that is safe to show, and nothing about HTTP or gRPC.

Codes are never renamed or used again for something else. The edges (``api/problems.py`` and the core packages'
``service.py``) turn them into status codes; anything that is not a ``RubricaError`` is a bug and shows as one.
"""

from typing import ClassVar


class RubricaError(Exception):
    """Never raised itself; has the code and the text that a stranger may see."""

    code: ClassVar[str] = "internal"
    public_detail: str
    retry_after_seconds: int | None = None

    def __init__(self, public_detail: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(public_detail)
        self.public_detail = public_detail
        self.retry_after_seconds = retry_after_seconds


# --- what the caller asked for cannot be done as asked


class RequestError(RubricaError):
    """The request itself is at fault."""

    code = "malformed_request"


class MalformedRequest(RequestError):
    """A field is missing, too long or of the wrong shape."""


class UnsupportedDocument(RequestError):
    """The document cannot be signed; the detail says why, in plain words."""

    code = "unsupported_document"


class DocumentTooLarge(RequestError):
    """The document, or what it unfolds to, is over a limit."""

    code = "document_too_large"


class AlgorithmNotAllowed(RequestError):
    """Not an algorithm, format or packaging that this service offers today."""

    code = "algorithm_not_allowed"


class NotFound(RequestError):
    """No such thing for this caller; a foreign one looks the same."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """This address knows other methods only."""

    code = "method_not_allowed"


# --- who asks


class CallerRefused(RubricaError):
    """The calling system could not prove who it is."""

    code = "caller_refused"


class NotPermitted(RubricaError):
    """The calling system is known but has no right to this."""

    code = "not_permitted"


class RateLimited(RubricaError):
    """Known and permitted, but too often; ``retry_after_seconds`` says when again."""

    code = "rate_limited"


# --- factors


class FactorError(RubricaError):
    """A password, one-time code or activation code did not open what it should."""

    code = "factor_mismatch"


class FactorMismatch(FactorError):
    """Wrong, used up or unknown: a stranger is not told which."""


class FactorLocked(FactorError):
    """Too many failures; ``retry_after_seconds`` says how long, where time alone mends it."""

    code = "factor_locked"


class CodeExpired(FactorError):
    """The one-time code's time is over, which its asker was told at the beginning; whether it was right is not said."""

    code = "code_expired"


class WeakPassword(FactorError):
    """The new password is below the policy; the detail names the rule."""

    code = "weak_password"


# --- activation (EN 419 241-1: SAD)


class ActivationError(RubricaError):
    """Outside, all of these read ``activation_refused``; the true code is in the log."""

    code = "activation_refused"
    reason: ClassVar[str] = "activation_refused"


class SADInvalid(ActivationError):
    """Unknown, foreign or tampered activation data."""

    reason = "sad_invalid"


class SADExpired(ActivationError):
    """The activation data outlived its time."""

    reason = "sad_expired"


class SADReplayed(ActivationError):
    """A code or SAD was presented a second time, with something changed."""

    reason = "sad_replayed"


class DTBSMismatch(ActivationError):
    """The item asked for is not one of those approved."""

    reason = "dtbs_mismatch"


class GenerationChanged(ActivationError):
    """Password, phone or certificate changed after the approval began."""

    reason = "generation_changed"


# --- the citizen's credential


class CredentialError(RubricaError):
    """The citizen is who they say, but cannot sign now."""

    code = "credential_unusable"


class NoCertificate(CredentialError):
    """No certificate of this key type, and none was asked for."""

    code = "no_certificate"


class WeakRegistration(CredentialError):
    """The registration is of the basic level; signing needs the advanced one."""

    code = "weak_registration"


class CredentialSuspended(CredentialError):
    """The certificate is suspended."""

    code = "credential_suspended"


class CredentialRevoked(CredentialError):
    """The certificate is revoked."""

    code = "credential_revoked"


class CertificateExpired(CredentialError):
    """The certificate has expired."""

    code = "certificate_expired"


# --- state


class StateConflict(RubricaError):
    """What is asked does not fit what already happened."""

    code = "state_conflict"


class RequestExpired(StateConflict):
    """The request or challenge is over; begin again."""

    code = "request_expired"


class AlreadySigned(StateConflict):
    """This item was signed before."""

    code = "request_already_signed"


class IdempotencyConflict(StateConflict):
    """The same idempotency key came with another body."""

    code = "idempotency_conflict"


class AlreadyRegistered(StateConflict):
    """This NIF or phone is in the register already."""

    code = "already_registered"


# --- what we depend on


class DependencyUnavailable(RubricaError):
    """A part we need does not answer; trying again later may help."""

    code = "dependency_unavailable"


class HSMUnavailable(DependencyUnavailable):
    """The HSM does not answer."""

    code = "hsm_unavailable"


class Busy(DependencyUnavailable):
    """A queue is full; nothing was reserved or spent."""

    code = "busy"


class IssuerUnavailable(DependencyUnavailable):
    """The certification authority does not answer or refused."""

    code = "ca_unavailable"


class TimestampUnavailable(DependencyUnavailable):
    """The timestamp authority, OCSP responder or CRL does not answer."""

    code = "tsa_unavailable"


class RowEdited(DependencyUnavailable):
    """A row's guard does not fit its content: nothing is done on it until somebody has looked."""

    code = "row_edited"


class LogUnavailable(DependencyUnavailable):
    """No log, no signature."""

    code = "log_unavailable"


def by_code() -> dict[str, type[RubricaError]]:
    """Every code with the class that carries it to the outside (the first one defined, where several share it)."""
    found: dict[str, type[RubricaError]] = {}
    pending: list[type[RubricaError]] = [RubricaError]
    while pending:
        kind = pending.pop(0)
        found.setdefault(kind.code, kind)
        pending.extend(kind.__subclasses__())
    return found
