"""What makes a signature last: timestamps and revocation data. Every byte from outside comes by ``fetch``."""

import secrets
from collections.abc import Callable, Iterator
from datetime import datetime

from asn1crypto import algos, cms, core, crl, ocsp, pem, tsp, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509 import load_der_x509_certificate
from pyhanko.sign.validation.generic_cms import validate_tst_signed_data
from pyhanko.sign.validation.status import TimestampSignatureStatus
from pyhanko_certvalidator.errors import PathError, RevokedError, ValidationError

from documents.model import Fetch, FetchKind, TrustMaterial
from documents.pades import trust as trusting
from documents.pades.cms import embedded_certificates, token_info
from documents.pades.trust import CLOCK_TOLERANCE, Evidence
from domain.digests import Digest, DigestAlgorithm
from domain.errors import CertificateExpired, CredentialRevoked, MalformedRequest, TimestampUnavailable

_CHAIN_LIMIT = 6
"""Certificates between a signer and its anchor; longer chains are somebody's joke."""

_GRANTED = frozenset({"granted", "granted_with_mods"})


def check_signer(signer: x509.Certificate, trust: TrustMaterial, evidence: Evidence, now: datetime) -> None:
    """Check the signer's path up to an anchor, with what revocation data is at hand.

    Raises:
        CredentialRevoked: The certificate, or one above it, is revoked.
        CertificateExpired: It is not valid now.
        MalformedRequest: It does not lead to an anchor, or is not one for signatures.
    """
    if not signer.not_valid_before - CLOCK_TOLERANCE <= now <= signer.not_valid_after:
        raise CertificateExpired("the signer's certificate is not valid now")
    validation = trusting.context(trust, now, evidence, revocation="soft-fail")
    try:
        trusting.path_of(signer, validation, key_usage=frozenset({"non_repudiation"}))
    except RevokedError as error:
        raise CredentialRevoked("the signer's certificate is revoked") from error
    except (ValidationError, PathError) as error:
        raise MalformedRequest("the signer's certificate does not lead to a trusted authority") from error


def request_timestamp(imprint: Digest, trust: TrustMaterial, fetch: Fetch, now: datetime) -> bytes:
    """A checked RFC 3161 token over ``imprint``, as DER.

    Raises:
        TimestampUnavailable: No answer, or not one to this question by an authority that ``trust`` knows.

    Source: RFC 3161 §2.4; EN 319 422.
    """
    nonce = secrets.randbits(63)
    request = tsp.TimeStampReq(
        {
            "version": "v1",
            "message_imprint": {
                "hash_algorithm": algos.DigestAlgorithm({"algorithm": imprint.algorithm.value}),
                "hashed_message": imprint.value,
            },
            "nonce": nonce,
            "cert_req": True,
        }
    )
    answer = fetch(FetchKind.TIMESTAMP, "", request.dump())
    try:
        token = _granted_token(answer)
        _check_token(token, imprint, nonce, trust, now)
    except TimestampUnavailable:
        raise
    except Exception as error:  # a stranger's ASN.1 can make the parser throw anything
        raise TimestampUnavailable("the timestamp authority's answer cannot be used") from error
    der: bytes = token.dump()
    return der


def gather(
    leaf: x509.Certificate, trust: TrustMaterial, fetch: Fetch, now: datetime, evidence: Evidence, *, signer: bool
) -> None:
    """Add to ``evidence`` the path of ``leaf`` and, for each certificate below the anchor, a fresh revocation answer.

    Args:
        leaf: Of the citizen, or of a TSA.
        trust: Anchors and CRLs at hand.
        fetch: Gets the rest.
        now: The time to validate at.
        evidence: Is added to; must hold the certificates that came with the signature or token.
        signer: Whether ``leaf`` is the citizen's.

    Raises:
        TimestampUnavailable: A responder does not answer, or its answer does not help.
        CredentialRevoked: The citizen's path is revoked.

    Source: EN 319 142-1 §6.3 (validation data for signer and TSA up to the anchors).
    """
    anchors = {x509.Certificate.load(der).dump() for der in trust.anchors}
    known_crls = [crl.CertificateList.load(der) for der in trust.crls]
    # The whole way up first: nobody but holders of our authorities' certificates names addresses to be asked.
    for certificate, issuer in list(_climb(leaf, anchors, trust, evidence)):
        _gather_revocation(certificate, issuer, known_crls, fetch, evidence)
    required = trusting.context(trust, now, evidence, revocation="require")
    try:
        path = trusting.path_of(leaf, required)
    except RevokedError as error:
        if signer:
            raise CredentialRevoked("the signer's certificate is revoked") from error
        raise TimestampUnavailable("the timestamp authority's certificate is revoked") from error
    except (ValidationError, PathError) as error:
        raise TimestampUnavailable("the revocation data at hand does not cover every certificate") from error
    evidence.add_certificates(path.iter_certs(include_root=True))


def _granted_token(answer: bytes) -> cms.ContentInfo:
    response = tsp.TimeStampResp.load(answer, strict=True)
    if response["status"]["status"].native not in _GRANTED:
        raise TimestampUnavailable("the timestamp authority refused")
    return response["time_stamp_token"]


def _check_token(token: cms.ContentInfo, imprint: Digest, nonce: int, trust: TrustMaterial, now: datetime) -> None:
    info = token_info(token)
    if info["nonce"].native != nonce:
        raise TimestampUnavailable("the timestamp answers another question")
    stamped: datetime = info["gen_time"].native
    if abs(stamped - now) > CLOCK_TOLERANCE:
        raise TimestampUnavailable("the timestamp authority's clock and this machine's differ by minutes")
    evidence = Evidence()
    evidence.add_certificates(embedded_certificates(token))

    def expected(algorithm: str) -> bytes:
        return imprint.value if algorithm == imprint.algorithm.value else b""

    status = TimestampSignatureStatus(
        **trusting.run(
            validate_tst_signed_data(
                token["content"], trusting.context(trust, now, evidence, revocation="soft-fail"), expected
            )
        )
    )
    if not (status.intact and status.valid and status.trusted):
        raise TimestampUnavailable("the timestamp is not one of a trusted authority over this document")


def _climb(
    leaf: x509.Certificate, anchors: set[bytes], trust: TrustMaterial, evidence: Evidence
) -> Iterator[tuple[x509.Certificate, x509.Certificate]]:
    """Each certificate below the anchor with its issuer, from ``leaf`` upwards."""
    at_hand = [x509.Certificate.load(der) for der in (*trust.anchors, *trust.intermediates)]
    current = leaf
    for _ in range(_CHAIN_LIMIT):
        if current.dump() in anchors:
            return
        issuer = _issuer_of(current, [*at_hand, *evidence.certificates.values()])
        if issuer is None:
            raise TimestampUnavailable("the authority above a certificate is not known")
        evidence.add_certificates([current, issuer])
        yield current, issuer
        current = issuer
    raise TimestampUnavailable("the chain of certificates does not end")


def _issuer_of(certificate: x509.Certificate, candidates: list[x509.Certificate]) -> x509.Certificate | None:
    """Found by name and by its signature; whether it may issue at all is checked with the whole path."""
    named = [candidate for candidate in candidates if candidate.subject == certificate.issuer]
    return next((candidate for candidate in named if _has_signed(candidate, certificate)), None)


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        load_der_x509_certificate(certificate.dump()).verify_directly_issued_by(
            load_der_x509_certificate(issuer.dump())
        )
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _gather_revocation(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    known_crls: list[crl.CertificateList],
    fetch: Fetch,
    evidence: Evidence,
) -> None:
    """OCSP first, as it is newer than any CRL; then a CRL, fetched or at hand."""
    failure: TimestampUnavailable | None = None
    for url in certificate.ocsp_urls:
        try:
            response = _ask_ocsp(url, certificate, issuer, fetch)
        except TimestampUnavailable as error:
            failure = error
            continue
        evidence.ocsps[response.dump()] = response
        return
    urls = [url for point in certificate.crl_distribution_points if (url := point.url)]
    for url in urls:
        try:
            data = fetch(FetchKind.CRL, url, None)
            found = _parsed(lambda der: crl.CertificateList.load(der, strict=True), _without_armour(data))
        except TimestampUnavailable as error:
            failure = error
            continue
        evidence.crls[found.dump()] = found
        return
    at_hand = [known for known in known_crls if known.issuer == certificate.issuer]
    if not at_hand:
        raise failure or TimestampUnavailable("a certificate names neither OCSP responder nor CRL")
    evidence.crls.update({known.dump(): known for known in at_hand})


def _ask_ocsp(url: str, certificate: x509.Certificate, issuer: x509.Certificate, fetch: Fetch) -> ocsp.OCSPResponse:
    """RFC 6960 §4.1, without nonce: responders that sign ahead of time have none."""
    identified = ocsp.CertId(
        {
            "hash_algorithm": algos.DigestAlgorithm({"algorithm": "sha1"}),
            "issuer_name_hash": issuer.subject.sha1,
            "issuer_key_hash": issuer.public_key.sha1,
            "serial_number": certificate.serial_number,
        }
    )
    request = ocsp.OCSPRequest({"tbs_request": {"request_list": [{"req_cert": identified}]}})
    data = fetch(FetchKind.OCSP, url, request.dump())
    response = _parsed(lambda der: ocsp.OCSPResponse.load(der, strict=True), data)
    if response["response_status"].native != "successful":
        raise TimestampUnavailable("the OCSP responder refused")
    return response


def _parsed(load: Callable[[bytes], core.Asn1Value], data: bytes) -> core.Asn1Value:
    try:
        value = load(data)
        value.native  # noqa: B018 - parsing is lazy; this reads every field
    except Exception as error:  # a stranger's ASN.1 can make the parser throw anything
        raise TimestampUnavailable("an authority's answer cannot be read") from error
    return value


def _without_armour(data: bytes) -> bytes:
    if not pem.detect(data):
        return data
    _, _, der = pem.unarmor(data)
    return bytes(der)


def signature_imprint(signature: bytes) -> Digest:
    """What a signature timestamp is over (RFC 3161 appendix A)."""
    return Digest.of(signature, DigestAlgorithm.SHA256)
