"""What people read where programs read an error code: what happened, and what to do next."""

from collections.abc import Callable, Mapping

_OTHER = "The service could not do this. Nothing was signed. Please try again in a few minutes."

_SENTENCES: Mapping[str, str] = {
    "malformed_request": "Something in what was sent is not complete. Please go back and try again.",
    "unsupported_document": "This document cannot be signed. Please choose another file.",
    "document_too_large": "The file is larger than this service takes. Please make it smaller or split it.",
    "not_found": (
        "There is nothing at this address for this browser. Open the link that you were given again, in the browser "
        "in which you began."
    ),
    "factor_mismatch": (
        "The data were not right: NIF, password or code. Nothing was signed. Check them and try again."
    ),
    "factor_locked": (
        "There were too many failed attempts, so this is closed for a while. Nothing was signed. Please try later."
    ),
    "code_expired": (
        "The time for this code is over. Nothing was signed and nothing is lost: fill in this step once more and you "
        "get a new code."
    ),
    "weak_password": "This password is too easy to guess. Please choose another one.",
    "activation_refused": "The approval was not accepted. Nothing was signed. Open the link again to start anew.",
    "credential_unusable": "Your certificate cannot be used now. Please contact a registration office.",
    "no_certificate": "You have no certificate for this kind of signature. Please contact a registration office.",
    "weak_registration": (
        "You are registered at the basic level, and signing needs the advanced one. Go to a registration office with "
        "your identity document to raise it."
    ),
    "credential_suspended": "Your certificate is suspended. Please contact a registration office.",
    "credential_revoked": "Your certificate was revoked. Please contact a registration office.",
    "certificate_expired": "Your certificate has expired. Please start again: a new one is issued while you sign.",
    "state_conflict": "This has already gone further elsewhere. Open the link again to see how far it is.",
    "request_expired": "The time for this is over. Nothing was lost: open the link again to start anew.",
    "request_already_signed": "This was signed before. Open the link again to see the signed document.",
    "dependency_unavailable": "A part of the service does not answer. Please try again in a few minutes.",
    "hsm_unavailable": "The signing device does not answer. Nothing was signed. Please try again in a few minutes.",
    "rate_limited": "This was asked for too often in a short time. Please wait a little and try again.",
    "busy": "Many people are using the service right now. Please try again in a moment.",
    "ca_unavailable": "The certification authority does not answer. Nothing was signed. Please try again later.",
    "tsa_unavailable": "The timestamp authority does not answer. Please try again later.",
}


def sentence(code: str, translate: Callable[[str], str]) -> str:
    """For the error with this stable code."""
    return translate(_SENTENCES.get(code, _OTHER))


def all_sentences(translate: Callable[[str], str]) -> dict[str, str]:
    """By code; the empty one is for every other."""
    return {code: translate(text) for code, text in {**_SENTENCES, "": _OTHER}.items()}
