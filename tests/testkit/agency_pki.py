"""An authority outside of the service that certifies agencies, with every fault that a certificate or list may have."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Extensions = Sequence[tuple[x509.ExtensionType, bool]]

LIFE = timedelta(days=365)
LIST_LIFE = timedelta(days=1)


def agency_name(common_name: str = "Sello de ejemplo", organisation: str = "Ayuntamiento de Ejemplo") -> x509.Name:
    """A subject as EN 319 412-3 §4.2.1 has it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "ES"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, "VATES-P0500100A"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def key_usage(*uses: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in uses for name in names})


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@dataclass
class Authority:
    """One CA: its own certificate, and the list that it signs."""

    name: x509.Name
    now: datetime
    key: PrivateKey = field(default_factory=p256)
    parent: "Authority | None" = None
    uses: Sequence[str] = ("key_cert_sign", "crl_sign")
    others: Extensions = ()

    def __post_init__(self) -> None:
        self.revoked: list[int] = []
        issuer = self.parent or self
        self.certificate = issuer.certify(
            self.name,
            self.key,
            extensions=[
                (x509.BasicConstraints(ca=True, path_length=None), True),
                (key_usage(*self.uses), True),
                (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
                *self.others,
            ],
        )

    def certify(
        self,
        subject: x509.Name,
        key: PrivateKey,
        *,
        extensions: Extensions | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate for ``key``; by default one that fits a client."""
        since = since or self.now - timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until or since + LIFE)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for value, critical in client_extensions() if extensions is None else extensions:
            builder = builder.add_extension(value, critical)
        return builder.sign(self.key, hashes.SHA256())

    def crl(
        self,
        *,
        since: datetime | None = None,
        life: timedelta = LIST_LIFE,
        extensions: Extensions = (),
        key: PrivateKey | None = None,
    ) -> bytes:
        """Its list of revoked certificates, DER."""
        since = since or self.now - timedelta(minutes=1)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(since).next_update(since + life)
        for value, critical in extensions:
            builder = builder.add_extension(value, critical)
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key or self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def client_extensions(
    *uses: str, others: Iterable[tuple[x509.ExtensionType, bool]] = (), ca: bool = False
) -> Extensions:
    """What a client's certificate says of itself; digitalSignature by default."""
    return [
        (x509.BasicConstraints(ca=ca, path_length=None), True),
        (key_usage(*(uses or ("digital_signature",))), True),
        *others,
    ]


class AgencyPKI:
    """A root that is the anchor, an issuing CA under it, and the folder that the core's operator keeps."""

    def __init__(self, folder: Path, now: datetime | None = None) -> None:
        """Write the folder, with current lists."""
        self.folder = folder
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.root = Authority(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Raíz de sellos")]), self.now)
        self.ca = Authority(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA de sellos")]), self.now, parent=self.root
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "root.pem").write_bytes(self.root.certificate.public_bytes(Encoding.PEM))
        self.publish()

    def publish(self, now: datetime | None = None) -> None:
        """Bring the lists up to date."""
        for name, authority in (("root", self.root), ("ca", self.ca)):
            (self.folder / f"{name}.crl").write_bytes(authority.crl(since=now))

    def chain(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        """As a client shows it: without the root."""
        return [certificate, self.ca.certificate]

    def issue(self, key: PrivateKey, subject: x509.Name | None = None) -> list[x509.Certificate]:
        """The chain of a new certificate."""
        return self.chain(self.ca.certify(agency_name() if subject is None else subject, key))
