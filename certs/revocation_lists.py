"""Lists of revoked certificates (CRL, RFC 5280 §5 and §6.3) that the operator keeps current in a folder.

Only what is signed by the certificate's own issuer, fresh and made for that certificate says anything. Where nothing
does, the answer is "unknown", which never counts as "good".
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.profiles import spki_of

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class StatusUnknown(Exception):
    """No list says whether a certificate is revoked."""


class RevocationList:
    """One list as its file has it; whose it is shows by its signature only."""

    def __init__(self, der: bytes) -> None:
        """Read the list whole, once.

        Args:
            der: CertificateList, DER.

        Raises:
            ValueError: Not a list, or one that says more than is understood here: a delta, an indirect list, a critical
                extension that is unknown, no end.
        """
        self._crl = x509.load_der_x509_crl(der)
        self._issuer = self._crl.issuer.public_bytes()
        self._scope = _scope(self._crl)
        if self._crl.next_update_utc is None:
            raise ValueError("the list does not say how long it is good")
        self._until = self._crl.next_update_utc
        self._since = self._crl.last_update_utc
        # Listed is revoked, whatever the entry says: a certificate on hold proves nobody either (§5.3.1).
        self._serials = frozenset(entry.serial_number for entry in self._crl)
        self._signers: dict[bytes, bool] = {}

    def speaks_of(self, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
        """Whether it is ``issuer``'s, fresh, and made for certificates like this one (RFC 5280 §6.3.3)."""
        return (
            self._issuer == issuer.subject.public_bytes()
            and self._since <= now < self._until
            and _covers(self._scope, certificate)
            and self._signed_by(issuer)
        )

    def lists(self, certificate: x509.Certificate) -> bool:
        """Whether it has the certificate's serial number."""
        return certificate.serial_number in self._serials

    def _signed_by(self, issuer: x509.Certificate) -> bool:
        key = issuer.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            return False
        if not isinstance(self._crl.signature_hash_algorithm, _HASHES):
            return False
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            return False
        # Lists have megabytes: their digest is made once, not at every request.
        known = spki_of(key)
        if known not in self._signers:
            self._signers[known] = self._crl.is_signature_valid(key)
        return self._signers[known]


def is_revoked(
    certificate: x509.Certificate, issuer: x509.Certificate, lists: Sequence[RevocationList], now: datetime
) -> bool:
    """What the lists say of a certificate.

    Raises:
        StatusUnknown: None of them speaks of it now: there is none by its issuer, or only old ones, or the issuer may
            not sign lists.
    """
    speaking = [each for each in lists if each.speaks_of(certificate, issuer, now)]
    if not speaking:
        raise StatusUnknown(f"no current list of revoked certificates by {issuer.subject.rfc4514_string()}")
    return any(each.lists(certificate) for each in speaking)


def _scope(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    scope: x509.IssuingDistributionPoint | None = None
    for extension in crl.extensions:
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            scope = extension.value
        elif extension.critical or isinstance(extension.value, x509.DeltaCRLIndicator):
            raise ValueError("the list has a critical extension that is not understood, or is a delta")
    if scope is not None and (
        scope.indirect_crl or scope.only_contains_attribute_certs or scope.only_some_reasons or scope.relative_name
    ):
        raise ValueError("the list is an indirect or partial one")
    return scope


def _covers(scope: x509.IssuingDistributionPoint | None, certificate: x509.Certificate) -> bool:
    if scope is None:
        return True
    authority = _is_authority(certificate)
    if (scope.only_contains_user_certs and authority) or (scope.only_contains_ca_certs and not authority):
        return False
    # A list in several files is complete for those certificates only that name its file.
    return scope.full_name is None or bool(set(scope.full_name) & _distribution_points(certificate))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _distribution_points(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return set()
    # One that is for some reasons only, or signed by another, is not the whole answer.
    whole = (point for point in points if point.reasons is None and point.crl_issuer is None)
    return {name for point in whole for name in point.full_name or ()}
