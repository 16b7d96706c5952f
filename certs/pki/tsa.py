"""Time-stamping authority (RFC 3161, with the ESSCertIDv2 of RFC 5816)."""

import hashlib
from dataclasses import dataclass
from typing import Any

from asn1crypto import algos, cms, core, tsp
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.pki.authority import Authority
from certs.pki.keys import TokenKey
from certs.pki.storage import Storage
from certs.profiles import TIMESTAMP_POLICY
from domain.clock import Clock
from domain.digests import DigestAlgorithm

REQUEST_LIMIT_BYTES = 4096
NONCE_LIMIT_BITS = 256
ACCURACY_SECONDS = 1
"""The token's time is in whole seconds."""


@dataclass(frozen=True, slots=True)
class TimestampAnswer:
    """What goes back over HTTP."""

    response: bytes
    """TimeStampResp, DER."""
    readable: bool
    """Whether the request was one at all."""


class _Rejection(Exception):
    def __init__(self, failure: str, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    algorithm: DigestAlgorithm
    imprint: bytes
    nonce: int | None
    certificates_wanted: bool


class TimestampAuthority:
    """Issues time-stamp tokens; runs in the thread that owns the token."""

    def __init__(self, authority: Authority, key: TokenKey, storage: Storage, clock: Clock) -> None:
        self._key = key
        self._storage = storage
        self._clock = clock
        own = authority.certificates
        self._certificate, self._ca = (
            asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER)) for certificate in (own.tsa, own.ca)
        )

    def respond(self, request: bytes) -> TimestampAnswer:
        """Answer a TimeStampReq (DER): a token, or a rejection with its PKIFailureInfo."""
        try:
            parsed = _parse(request)
        except Exception:  # noqa: BLE001 - a parser's every failure on a stranger's bytes is the stranger's
            return TimestampAnswer(_rejection("bad_data_format", "not a TimeStampReq"), readable=False)
        try:
            wanted = _check(parsed)
        except _Rejection as rejection:
            return TimestampAnswer(_rejection(rejection.failure, rejection.text), readable=True)
        response: bytes = tsp.TimeStampResp(
            {"status": {"status": "granted"}, "time_stamp_token": self._token(wanted)}
        ).dump()
        return TimestampAnswer(response, readable=True)

    def _token(self, request: _Request) -> Any:
        with self._storage.transaction() as tx:
            serial = tx.count("timestamp")
        info: dict[str, Any] = {
            "version": "v1",
            "policy": TIMESTAMP_POLICY,
            "message_imprint": {
                "hash_algorithm": {"algorithm": request.algorithm.value},
                "hashed_message": request.imprint,
            },
            "serial_number": serial,
            "gen_time": self._clock.now().replace(microsecond=0),
            "accuracy": {"seconds": ACCURACY_SECONDS},
        }
        if request.nonce is not None:
            info["nonce"] = request.nonce
        content = tsp.TSTInfo(info)
        attributes = self._signed_attributes(content.dump())
        signer = cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    "issuer_and_serial_number",
                    {"issuer": self._certificate.issuer, "serial_number": self._certificate.serial_number},
                ),
                "digest_algorithm": algos.DigestAlgorithm({"algorithm": "sha256"}),
                "signed_attrs": attributes,
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
                # RFC 5652 §5.4: signed as SET OF, not under the implicit tag that it travels with.
                "signature": self._key.sign_sha256(attributes.dump()),
            }
        )
        signed: dict[str, Any] = {
            "version": "v3",
            "digest_algorithms": [algos.DigestAlgorithm({"algorithm": "sha256"})],
            "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(content.dump())},
            "signer_infos": [signer],
        }
        if request.certificates_wanted:
            signed["certificates"] = [self._certificate, self._ca]
        return cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)})

    def _signed_attributes(self, content: bytes) -> Any:
        cert_id = tsp.ESSCertIDv2(
            {
                "cert_hash": hashlib.sha256(self._certificate.dump()).digest(),
                "issuer_serial": {
                    "issuer": [asn1_x509.GeneralName("directory_name", self._certificate.issuer)],
                    "serial_number": self._certificate.serial_number,
                },
            }
        )
        return cms.CMSAttributes(
            [
                cms.CMSAttribute({"type": "content_type", "values": ["tst_info"]}),
                cms.CMSAttribute({"type": "message_digest", "values": [hashlib.sha256(content).digest()]}),
                cms.CMSAttribute(
                    {"type": "signing_certificate_v2", "values": [tsp.SigningCertificateV2({"certs": [cert_id]})]}
                ),
            ]
        )


def _parse(request: bytes) -> Any:
    if len(request) > REQUEST_LIMIT_BYTES:
        raise ValueError("the request is too long")
    parsed = tsp.TimeStampReq.load(request, strict=True)
    # The library parses lazily: asking for the native form of everything brings its errors to light here.
    parsed.native  # noqa: B018 - see above
    return parsed


def _check(request: Any) -> _Request:
    if request["version"].native != "v1":
        raise _Rejection("bad_request", "the version must be 1")
    imprint = request["message_imprint"]
    try:
        algorithm = DigestAlgorithm(imprint["hash_algorithm"]["algorithm"].native)
    except ValueError:
        raise _Rejection("bad_alg", "the imprint must be SHA-256, SHA-384 or SHA-512") from None
    value: bytes = imprint["hashed_message"].native
    if len(value) != algorithm.size_bytes:
        raise _Rejection("bad_data_format", "the imprint has not the length of its algorithm")
    if request["req_policy"].native not in (None, TIMESTAMP_POLICY):
        raise _Rejection("unaccepted_policy", f"the only policy is {TIMESTAMP_POLICY}")
    if request["extensions"].native:
        raise _Rejection("unaccepted_extensions", "no extension is known here")
    nonce: int | None = request["nonce"].native
    if nonce is not None and nonce.bit_length() > NONCE_LIMIT_BITS:
        raise _Rejection("bad_request", f"a nonce has at most {NONCE_LIMIT_BITS} bits")
    return _Request(
        algorithm=algorithm, imprint=value, nonce=nonce, certificates_wanted=bool(request["cert_req"].native)
    )


def _rejection(failure: str, text: str) -> bytes:
    info = tsp.PKIStatusInfo({"status": "rejection", "status_string": [text], "fail_info": {failure}})
    # TimeStampResp without its optional token, which the library's class insists on.
    response: bytes = core.SequenceOf([info], spec=tsp.PKIStatusInfo).dump()
    return response
