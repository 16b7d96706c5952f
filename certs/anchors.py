"""The roots that an issuer's answers must lead up to: pinned in a file by the operator, never taken from the answer."""

from pathlib import Path

from cryptography import x509

from domain.errors import IssuerUnavailable


class TrustAnchors:
    """Reads its file at first need, since a development PKI may write it while the core starts."""

    def __init__(self, path: Path | None) -> None:
        """Nothing is read yet.

        Args:
            path: Certificates in PEM; ``None`` where no issuer is configured.
        """
        self._path = path
        self._loaded: tuple[x509.Certificate, ...] = ()

    def load(self) -> tuple[x509.Certificate, ...]:
        """The pinned roots, at least one.

        Raises:
            IssuerUnavailable: The file is not there, or not yet.
        """
        if not self._loaded:
            if self._path is None:
                raise IssuerUnavailable("no trust anchor is configured")
            try:
                self._loaded = tuple(x509.load_pem_x509_certificates(self._path.read_bytes()))
            except (OSError, ValueError) as error:
                raise IssuerUnavailable("the trust anchors cannot be read") from error
        return self._loaded
