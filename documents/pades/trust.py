"""Certificate paths by pyhanko-certvalidator, on material that is at hand; it never fetches by itself."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from asn1crypto import crl, ocsp, x509
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.path import ValidationPath

from documents.model import TrustMaterial

T = TypeVar("T")

CLOCK_TOLERANCE = timedelta(minutes=5)
"""Between this machine, the core, the TSA and the OCSP responder, and for the time that finishing takes."""


@dataclass(slots=True)
class Evidence:
    """Certificates and revocation data, each once."""

    certificates: dict[bytes, x509.Certificate] = field(default_factory=dict)
    ocsps: dict[bytes, ocsp.OCSPResponse] = field(default_factory=dict)
    crls: dict[bytes, crl.CertificateList] = field(default_factory=dict)

    def add_certificates(self, certificates: Iterable[x509.Certificate]) -> None:
        """Take ``certificates`` in."""
        self.certificates.update({certificate.dump(): certificate for certificate in certificates})


def run(work: Coroutine[Any, Any, T]) -> T:
    """Drive pyHanko's coroutines, which wait for nothing here; not to be called inside a running event loop."""
    return asyncio.run(work)


def context(trust: TrustMaterial, moment: datetime, evidence: Evidence, *, revocation: str) -> ValidationContext:
    """A validation context that knows ``trust`` and ``evidence`` only.

    Args:
        trust: Anchors, and what else the caller believes in.
        moment: The time to validate at.
        evidence: What was gathered so far.
        revocation: ``soft-fail`` (what is known counts, nothing is required) or ``require``.
    """
    return ValidationContext(
        trust_roots=[x509.Certificate.load(der) for der in trust.anchors],
        other_certs=[*(x509.Certificate.load(der) for der in trust.intermediates), *evidence.certificates.values()],
        moment=moment,
        crls=[*(crl.CertificateList.load(der) for der in trust.crls), *evidence.crls.values()],
        ocsps=list(evidence.ocsps.values()),
        revocation_mode=revocation,
        allow_fetching=False,
        time_tolerance=CLOCK_TOLERANCE,
    )


def path_of(
    certificate: x509.Certificate,
    validation: ValidationContext,
    *,
    key_usage: frozenset[str] = frozenset(),
    extended_key_usage: frozenset[str] = frozenset(),
) -> ValidationPath:
    """The path from an anchor to ``certificate``.

    Raises:
        ValidationError, PathError: Of certvalidator, where there is none.
    """
    validator = CertificateValidator(certificate, validation_context=validation)
    found: ValidationPath = run(
        validator.async_validate_usage(  # type: ignore[no-untyped-call] # certvalidator
            set(key_usage), set(extended_key_usage), extended_optional=True
        )
    )
    return found
