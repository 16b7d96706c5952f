"""Names of the keys that live on a token. Labels on the token are ``<name>_<version>``, for example ``K_pep_1``."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from domain.algorithms import KeyType


class MACKey(StrEnum):
    """HMAC-SHA256 keys of the token "core"."""

    PEPPER = "K_pep"
    CAPSULE = "K_act"
    ROW = "K_row"
    PSEUDONYM = "K_pid"
    INDEX = "K_idx"
    DEVICE = "K_dev"


class WrappingKey(StrEnum):
    """AES-256 keys that wrap private keys (AES-KWP, RFC 5649) and do nothing else."""

    CITIZEN = "KEK"
    SAP = "KEK_sap"


class SigningKey(StrEnum):
    """P-256 keys that stay on the token."""

    TOKENS = "TOK"
    SEAL = "SEAL"
    LOG = "LOG"
    PKI_ROOT = "ROOT"
    PKI_CA = "CA"
    PKI_OCSP = "OCSP"
    PKI_TSA = "TSA"


class SealingKey(StrEnum):
    """AES-256, GCM inside the HSM: wraps the data keys of encrypted columns and outbox bodies."""

    COLUMNS = "K_col"


class Inventory(StrEnum):
    """Which keys a token must hold, all of them and nothing else: ``hsm/inventory.py`` lists them."""

    CORE = "core"
    PKI = "pki"


TokenKey: TypeAlias = MACKey | WrappingKey | SigningKey | SealingKey
"""Any key that lives on a token."""


WRAPPED_BYTES = {KeyType.P256: 80, KeyType.RSA3072: 1808}
"""Length of a wrapped private key. One per type: what is parked for a wrong password must not differ in it."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A newborn key, wrapped; its private half was destroyed inside the call that made it."""

    wrapped: bytes
    """AES-KWP blob, always ``WRAPPED_BYTES`` of its key type."""
    spki: bytes
    """SubjectPublicKeyInfo, DER."""
