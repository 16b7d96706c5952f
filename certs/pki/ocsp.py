"""Status of single certificates (RFC 6960), told by a responder that the issuing CA delegated to."""

import hashlib
from datetime import timedelta
from typing import Any

from asn1crypto import algos, core, ocsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as x509_ocsp

from certs.issuer import RevocationReason
from certs.pki.authority import Authority
from certs.pki.keys import TokenKey
from certs.pki.storage import Entry
from domain.clock import Clock

ANSWER_LIFE = timedelta(days=1)
REQUEST_LIMIT_BYTES = 4096
NONCE_LIMIT_BYTES = 128  # RFC 9654 §2.1
CERT_ID_HASHES = ("sha1", "sha256", "sha384", "sha512")
"""RFC 5019 clients name the issuer by SHA-1; nothing is signed with it."""

REASONS = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "key_compromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliation_changed",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessation_of_operation",
}


class OCSPResponder:
    """Answers for certificates of the issuing CA; runs in the thread that owns the token."""

    def __init__(self, authority: Authority, key: TokenKey, clock: Clock) -> None:
        self._authority = authority
        self._key = key
        self._clock = clock
        self._certificate = asn1_x509.Certificate.load(authority.certificates.ocsp.public_bytes(Encoding.DER))
        ca = asn1_x509.Certificate.load(authority.certificates.ca.public_bytes(Encoding.DER))
        key_bits = ca.public_key["public_key"].contents[1:]
        self._issuer_ids = {
            name: (hashlib.new(name, ca.subject.dump()).digest(), hashlib.new(name, key_bits).digest())
            for name in CERT_ID_HASHES
        }

    def respond(self, request: bytes) -> bytes:
        """Answer an OCSPRequest (DER) about one certificate.

        Returns:
            An OCSPResponse, DER: signed with the status good, revoked or unknown; or one of the unsigned errors
            malformedRequest (also for more than one certificate) and unauthorized (another issuer's certificate).
        """
        try:
            parsed = x509_ocsp.load_der_ocsp_request(_limited(request))
            nonce = _nonce(parsed)
            hash_name = parsed.hash_algorithm.name
            issuer_id = (parsed.issuer_name_hash, parsed.issuer_key_hash)
            serial = parsed.serial_number
        except Exception:  # noqa: BLE001 - a parser's every failure on a stranger's bytes is the stranger's
            return _error("malformed_request")
        if self._issuer_ids.get(hash_name) != issuer_id:
            return _error("unauthorized")
        return self._signed(hash_name, issuer_id, serial, nonce)

    def _signed(self, hash_name: str, issuer_id: tuple[bytes, bytes], serial: int, nonce: bytes | None) -> bytes:
        now = self._clock.now().replace(microsecond=0)
        single = {
            "cert_id": {
                "hash_algorithm": {"algorithm": hash_name},
                "issuer_name_hash": issuer_id[0],
                "issuer_key_hash": issuer_id[1],
                "serial_number": serial,
            },
            "cert_status": _status(self._authority.find(serial)),
            "this_update": now,
            "next_update": now + ANSWER_LIFE,
        }
        data: dict[str, Any] = {
            "responder_id": ocsp.ResponderId("by_key", self._certificate.public_key.sha1),
            "produced_at": now,
            "responses": [single],
        }
        if nonce is not None:
            data["response_extensions"] = [{"extn_id": "nonce", "extn_value": core.OctetString(nonce)}]
        to_be_signed = ocsp.ResponseData(data)
        basic = ocsp.BasicOCSPResponse(
            {
                "tbs_response_data": to_be_signed,
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
                "signature": self._key.sign_sha256(to_be_signed.dump()),
                "certs": [self._certificate],
            }
        )
        response: bytes = ocsp.OCSPResponse(
            {
                "response_status": "successful",
                "response_bytes": {"response_type": "basic_ocsp_response", "response": basic},
            }
        ).dump()
        return response


def _limited(request: bytes) -> bytes:
    if len(request) > REQUEST_LIMIT_BYTES:
        raise ValueError("the request is too long")
    return request


def _nonce(request: x509_ocsp.OCSPRequest) -> bytes | None:
    try:
        nonce = request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None
    if not 1 <= len(nonce) <= NONCE_LIMIT_BYTES:
        raise ValueError("a nonce has 1 to 128 bytes")
    return nonce


def _status(entry: Entry | None) -> Any:
    if entry is None:
        return ocsp.CertStatus("unknown", ocsp.StatusUnknown())
    if entry.revoked_at is None or entry.reason is None:
        return ocsp.CertStatus("good", ocsp.StatusGood())
    revoked = {"revocation_time": entry.revoked_at, "revocation_reason": REASONS[entry.reason]}
    return ocsp.CertStatus("revoked", ocsp.RevokedInfo(revoked))


def _error(status: str) -> bytes:
    response: bytes = ocsp.OCSPResponse({"response_status": status}).dump()
    return response
