"""Step 5, second half: which key an approval is for. B1 from the citizen's own B2, or a newborn one for item 0.

Where the password was wrong, everything has the same shape and nothing of it ever opens.
"""

from dataclasses import dataclass

from authn.registration.citizens import Citizen
from authn.sealing import unopenable
from domain.assurance import RegistrationLevel
from domain.clock import Clock
from domain.errors import (
    CertificateExpired,
    CredentialError,
    CredentialSuspended,
    NoCertificate,
    StateConflict,
    WeakRegistration,
)
from domain.ids import CredentialId, Randomness, new_id
from hsm.keys import KeyPair
from signer.credentials import Credential, CredentialState, open_key, seal_key
from signer.requests import StagedRequest

WRAPPED_P256_SIZE_BYTES = 80
REASONS: dict[str, tuple[type[CredentialError], str]] = {
    kind.code: (kind, text)
    for kind, text in (
        (
            WeakRegistration,
            "your registration is of the basic level; raise it at an office or with a certificate",
        ),
        (NoCertificate, "you have no certificate for this kind of signature yet"),
        (CredentialSuspended, "your certificate is suspended"),
        (CertificateExpired, "your certificate has expired"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KeyMaterial:
    """What goes into the capsule, and what is kept beside it."""

    credential_id: CredentialId
    wrapped: bytes | None
    """B1; absent where nothing may open."""
    size_bytes: int
    is_new: bool = False
    kek_version: int
    sealed_key: bytes | None = None
    """B2 of a newborn key."""
    spki: bytes | None = None
    refusal: str | None = None
    """Code of the reason why a citizen with the right password cannot sign; told only after the code."""


def reason(refusal: str) -> CredentialError:
    """The error that tells a citizen, once both factors were right, why they cannot sign."""
    kind, text = REASONS[refusal]
    return kind(text)


class KeyMaterials:
    """Chooses, the same way and at the same cost for everybody."""

    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness

    def choose(
        self,
        staged: StagedRequest,
        *,
        citizen: Citizen | None,
        held: Credential | None,
        secret: bytes | None,
        newborn: KeyPair | None,
        kek_version: int,
    ) -> KeyMaterial:
        """Open the key that is there, or seal the newborn one.

        Args:
            staged: What is to be approved.
            citizen: ``None`` for a stranger.
            held: The citizen's credential of this key type.
            secret: V, or ``None`` after a wrong password.
            newborn: Made whenever item 0 is staged, for whoever asks.
            kek_version: Of the key that wraps ``newborn``.
        """
        credential_id = CredentialId(new_id(self._randomness))
        size_bytes = len(newborn.wrapped) if newborn else WRAPPED_P256_SIZE_BYTES
        if secret is None or citizen is None:
            return KeyMaterial(
                credential_id=credential_id,
                wrapped=None,
                size_bytes=size_bytes,
                is_new=newborn is not None,
                kek_version=kek_version,
                sealed_key=unopenable(size_bytes) if newborn else None,
                spki=newborn.spki if newborn else None,
            )
        refusal = self._refusal(staged, citizen, held)
        if refusal is not None:
            return KeyMaterial(
                credential_id=credential_id,
                wrapped=self._randomness(size_bytes),
                size_bytes=size_bytes,
                kek_version=kek_version,
                refusal=refusal,
            )
        if held is not None and held.is_valid(self._clock.now()):
            wrapped = open_key(held, secret)
            return KeyMaterial(
                credential_id=held.id, wrapped=wrapped, size_bytes=len(wrapped), kek_version=held.kek_version
            )
        if newborn is None:
            raise StateConflict("a certificate is needed, and none was asked for")
        return KeyMaterial(
            credential_id=credential_id,
            wrapped=newborn.wrapped,
            size_bytes=size_bytes,
            is_new=True,
            kek_version=kek_version,
            sealed_key=seal_key(credential_id, newborn, kek_version, secret),
            spki=newborn.spki,
        )

    def _refusal(self, staged: StagedRequest, citizen: Citizen, held: Credential | None) -> str | None:
        """Step 2: why a citizen with the right password cannot sign."""
        if citizen.level is not RegistrationLevel.ADVANCED:
            return WeakRegistration.code
        if held is not None and held.state is CredentialState.SUSPENDED:
            return CredentialSuspended.code
        if staged.asks_certificate:
            return None
        if held is None:
            return NoCertificate.code
        return None if held.is_valid(self._clock.now()) else CertificateExpired.code
