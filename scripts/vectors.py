"""Writes tests/vectors/*.json. A third implementation of docs/protocol.md, by the standard library alone.

It imports nothing of the service or its client, so that neither is compared with itself. Only the recorded HPKE
messages need a library. Run it once, when a format is added; vectors that exist are never changed, since pages and
clients of earlier releases hold to them.
"""

import hashlib
import hmac
import json
import secrets
import struct
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "vectors"

TEXT, BYTES, NUMBER, LIST = "text", "hex", "number", "list"


def encoded(part: Any) -> bytes:
    """One part in its JSON form ({"text": …}, {"hex": …}, {"number": …}, {"list": […]} or null) as canonical bytes."""
    if part is None:
        return struct.pack(">I", 0xFFFFFFFF)
    ((kind, value),) = part.items()
    if kind == LIST:
        return struct.pack(">I", len(value)) + b"".join(encoded(inner) for inner in value)
    if kind == NUMBER:
        content = struct.pack(">Q", value)
    elif kind == TEXT:
        content = unicodedata.normalize("NFC", value).encode("utf-8")
    else:
        content = bytes.fromhex(value)
    return struct.pack(">I", len(content)) + content


def joined(parts: list[Any]) -> bytes:
    """Several parts, one after another."""
    return b"".join(encoded(part) for part in parts)


def text(value: str | None) -> Any:
    """A text part, or an absent one."""
    return None if value is None else {TEXT: value}


def octets(value: bytes | None) -> Any:
    """A part of bytes, or an absent one."""
    return None if value is None else {BYTES: value.hex()}


def derived(label: str, parts: list[Any]) -> bytes:
    """KDF: HKDF-SHA256 (RFC 5869) with empty salt, written out; 32 bytes are one block."""
    pseudorandom = hmac.new(bytes(32), joined(parts), hashlib.sha256).digest()
    return hmac.new(pseudorandom, b"rubrica/1/" + label.encode() + b"\x01", hashlib.sha256).digest()


def canonical_vectors() -> list[dict[str, Any]]:
    """Every kind of part, and where two might be mistaken for each other."""
    cases: dict[str, list[Any]] = {
        "nothing": [],
        "empty text and empty bytes are alike": [{TEXT: ""}, {BYTES: ""}],
        "absent is not empty": [None],
        "text in NFC: n and combining tilde": [{TEXT: "Nu\u0301n\u0303ez"}],
        "the same, composed": [{TEXT: "N\u00fa\u00f1ez"}],
        "beyond the basic plane": [{TEXT: "𝔰ign"}],
        "integers": [{NUMBER: 0}, {NUMBER: 1}, {NUMBER: 2**64 - 1}],
        "list: its count, then its parts": [{LIST: [{TEXT: "a"}, {BYTES: "ff00"}, None]}],
        "empty list": [{LIST: []}],
        "list in a list": [{LIST: [{LIST: [{NUMBER: 7}]}, {TEXT: "x"}]}],
        "borders of parts matter: ab, c": [{TEXT: "ab"}, {TEXT: "c"}],
        "borders of parts matter: a, bc": [{TEXT: "a"}, {TEXT: "bc"}],
    }
    return [{"name": name, "parts": parts, "encoded": joined(parts).hex()} for name, parts in cases.items()]


def item(purpose: str, algorithm: str, **rest: Any) -> dict[str, Any]:
    """An item in the form in which the gate describes it, digests in hexadecimal."""
    plain: dict[str, Any] = {"format": "", "packaging": "", "digests": [], "title": "", "fields": {}}
    return {"purpose": purpose, "algorithm": algorithm, **plain, **rest}


def pades(number: int, title: str, **fields: str) -> dict[str, Any]:
    """A PDF to be signed."""
    digest = hashlib.sha256(f"document {number}".encode()).hexdigest()
    return item(
        "sign",
        "ES256",
        format="pades",
        packaging="enveloped",
        digests=[{"algorithm": "sha256", "value": digest}],
        title=title,
        fields=fields,
    )


def xades(packaging: str, **reference: Any) -> dict[str, Any]:
    """A document to be signed by XAdES."""
    digest = {"algorithm": "sha256", "value": hashlib.sha256(packaging.encode()).hexdigest()}
    plain = {"uri": "", "type": "", "transforms": [], "digest": digest}
    return item(
        "sign",
        "ES256",
        format="xades",
        packaging=packaging,
        references=[{**plain, **reference}],
        title="Expediente",
        fields={"mime_type": "application/xml", "signature_id": "rubrica-1"},
    )


def approved_list(items: list[dict[str, Any]]) -> bytes:
    """HL."""
    lines = []
    for each in items:
        digests = [
            part for digest in each["digests"] for part in ({TEXT: digest["algorithm"]}, {BYTES: digest["value"]})
        ]
        for reference in each.get("references", []):
            transforms = [{TEXT: name} for name in reference["transforms"]]
            digests += [{TEXT: reference["uri"]}, {TEXT: reference["type"]}, {LIST: transforms}]
            digests += [{TEXT: reference["digest"]["algorithm"]}, {BYTES: reference["digest"]["value"]}]
        fields = [{TEXT: part} for name in sorted(each["fields"]) for part in (name, each["fields"][name])]
        fields_sha256 = hashlib.sha256(encoded({LIST: fields})).digest()
        names = ("purpose", "format", "packaging", "algorithm")
        parts = [*({TEXT: each[name]} for name in names), {LIST: digests}, {TEXT: each["title"]}, octets(fields_sha256)]
        lines.append(joined(parts))
    return struct.pack(">I", len(items)) + b"".join(lines)


def item_vectors() -> list[dict[str, Any]]:
    """Lists as they are approved."""
    certificate = item("certificate", "P-256")
    cases = {
        "one document, no certificate asked for": [pades(1, "Solicitud")],
        "certificate and one document": [certificate, pades(1, "Solicitud")],
        "order matters": [certificate, pades(2, "Anexo"), pades(1, "Solicitud")],
        "title in NFC": [certificate, pades(1, "Declaracio\u0301n de Begon\u0303a")],
        "signature fields in order of name": [
            certificate,
            pades(1, "Solicitud", commitment_type="proof_of_approval", another="1"),
        ],
        "RSA": [item("certificate", "RSA-3072"), {**pades(1, "Solicitud"), "algorithm": "RS256"}],
        "two digests": [
            {
                **pades(1, "Dos"),
                "digests": [
                    {"algorithm": "sha256", "value": "11" * 32},
                    {"algorithm": "sha512", "value": "22" * 64},
                ],
            }
        ],
    }
    return listed(cases)


def reference_vectors() -> list[dict[str, Any]]:
    """Lists with XML signatures."""
    dsig = "http://www.w3.org/2000/09/xmldsig#"
    exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
    enveloped = xades("enveloped", transforms=[f"{dsig}enveloped-signature", exclusive])
    in_object: dict[str, Any] = {"uri": "#rubrica-1-object", "type": f"{dsig}Object"}
    cases = {
        "enveloped": [item("certificate", "P-256"), enveloped],
        "order of transforms matters": [xades("enveloped", transforms=[exclusive, f"{dsig}enveloped-signature"])],
        "enveloping XML": [xades("enveloping", **in_object, transforms=[exclusive])],
        "enveloping octets": [xades("enveloping", **in_object, transforms=[f"{dsig}base64"])],
        "detached, RSA": [{**xades("detached", uri="Solicitud%20n.%C2%BA%203.pdf"), "algorithm": "RS256"}],
        "beside a PDF": [enveloped, pades(1, "Solicitud")],
        "two references": [
            {**enveloped, "references": [*enveloped["references"], *xades("detached", uri="anexo.bin")["references"]]}
        ],
    }
    return listed(cases)


def listed(cases: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each list with its encoding and hash."""
    return [
        {"name": name, "items": items, "list": approved_list(items).hex(), "sha256": hashed(approved_list(items))}
        for name, items in cases.items()
    ]


def hashed(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def key_vectors() -> list[dict[str, Any]]:
    """One derivation per label."""
    labels = ("pw", "key", "otp", "code", "sad", "parked", "answer")
    parts = [octets(bytes(range(32))), text("0123456789ABCDEFGHJKMNPQRS")]
    return [{"label": label, "parts": parts, "key": derived(label, parts).hex()} for label in labels]


Case = tuple[str, str | None, bytes | None, str | None, str | None, list[bytes]]
"""Purpose, subject, SHA-256 of the list, client, challenge id, plaintext's parts."""


def password_cases(listed: bytes, cid: str, cs: bytes) -> list[Case]:
    """Every purpose of signatures and passwords."""
    nif, client, token = "12345678Z", "sede", bytes(range(32, 64))
    password = unicodedata.normalize("NFKC", "contrasen\u0303a de prueba \uff11").encode()
    return [
        ("sign-begin", nif, listed, client, None, [password, cs]),
        ("sign-complete", None, listed, client, cid, [b"012345", cs]),
        ("activation-begin", nif, None, None, None, [b"ABCD2345EFGH6789", cs]),
        ("activation-complete", None, None, None, cid, [b"012345", cs]),
        ("activation-set", None, None, None, cid, [password, token]),
        ("password-change-begin", nif, None, None, None, [password, cs]),
        ("password-change-complete", None, None, None, cid, [b"012345", cs]),
        ("password-change-set", None, None, None, cid, [password, token]),
    ]


def pin_cases(_listed: bytes, cid: str, cs: bytes) -> list[Case]:
    """Both purposes of a login by PIN."""
    return [
        ("pin-begin", "12345678Z", None, "web", None, [b"GAT0", cs]),
        ("pin-complete", "nonce-of-this-browser-1", None, "web", cid, [b"GAT0" + b"BC23XZ", cs]),
    ]


def envelope_vectors(cases_of: Callable[[bytes, str, bytes], list[Case]]) -> dict[str, Any]:
    """Recorded messages, one for each purpose, to a private key that is given; and one sealed answer."""
    private = ec.derive_private_key(int.from_bytes(hashlib.sha256(b"rubrica test SAP").digest()), ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    cid, cs, token = "ZYXWVTSRQPNMKJHGFEDCBA9876", bytes(range(32)), bytes(range(32, 64))
    cases = cases_of(hashlib.sha256(b"HL").digest(), cid, cs)
    messages = []
    for number, (purpose, subject, list_sha256, client_id, challenge_id, secret) in enumerate(cases):
        sap_id, nonce = "00000000000000000000000001", hashlib.sha256(f"nonce {number}".encode()).digest()[:16]
        info = joined(
            [
                text("rubrica/1"),
                text(sap_id),
                octets(nonce),
                text(purpose),
                text(subject),
                octets(list_sha256),
                text(client_id),
                text("sms"),
                text(challenge_id),
            ]
        )
        plaintext = joined([octets(part) for part in secret])
        sealed = suite.encrypt(plaintext, private.public_key(), info)
        messages.append(
            {
                "purpose": purpose,
                "sap_id": sap_id,
                "nonce": nonce.hex(),
                "subject": subject,
                "list_sha256": list_sha256.hex() if list_sha256 else None,
                "client_id": client_id,
                "challenge_id": challenge_id,
                "info": info.hex(),
                "secrets": [part.hex() for part in secret],
                "plaintext": plaintext.hex(),
                "enc": sealed[:65].hex(),
                "ciphertext": sealed[65:].hex(),
            }
        )
    drawn = secrets.token_bytes(12)
    key = derived("answer", [octets(cs), text(cid)])
    answer = drawn + AESGCM(key).encrypt(drawn, token, joined([text(cid)]))
    return {
        "sap_private_key": f"{private.private_numbers().private_value:064x}",
        "sap_public_key": point.hex(),
        "messages": messages,
        "answer": {"cs": cs.hex(), "challenge_id": cid, "token": token.hex(), "sealed": answer.hex()},
    }


def main() -> int:
    """Write what is not there yet."""
    for name, vectors in (
        ("canonical", canonical_vectors()),
        ("items", item_vectors()),
        ("references", reference_vectors()),
        ("kdf", key_vectors()),
        ("envelope", envelope_vectors(password_cases)),
        ("envelope_pin", envelope_vectors(pin_cases)),
    ):
        path = FOLDER / f"{name}.json"
        if path.exists():
            print(f"{path.name} is there and stays as it is")
            continue
        path.write_text(json.dumps(vectors, indent=1, ensure_ascii=True) + "\n")
        print(f"{path.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
