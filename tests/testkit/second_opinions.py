"""Judges besides EU DSS, each a program or library that shares no code with us; one that is missing is an error."""

import json
import subprocess
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from lxml.etree import LxmlError
from signxml.exceptions import SignXMLException
from signxml.xades.xades import XAdESSignatureConfiguration, XAdESVerifier

from tests.testkit.dss import INTEROP
from tests.testkit.pki import PROJECT

KEPT = PROJECT / "var" / "interop"
ENDESIVE_PYTHON = KEPT / "endesive-venv" / "bin" / "python"
SIGNED_PROPERTIES = "http://uri.etsi.org/01903/v1.3.2#:SignedProperties"


def endesive(root: Path, case: str, files: Mapping[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """What endesive says of each signature of each PDF; kept with them in ``var/interop/endesive``.

    Args:
        root: PEM of the trust anchor.
        case: Unique name.
        files: PDFs by name.
    """
    folder = KEPT / "endesive" / case
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.pdf" for name in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [ENDESIVE_PYTHON, INTEROP / "endesive" / "verdict.py", root, *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "verdict.json").write_text(done.stdout)
    return dict(zip(files, json.loads(done.stdout), strict=True))


def xmlsec1(case: str, signed: bytes, trust: Path) -> tuple[bool, str]:
    """Whether xmlsec1 passes an XML signature by a certificate that leads to the root, and what it says.

    Args:
        case: Unique name; file and words are kept in ``var/interop/xmlsec1``.
        signed: The document.
        trust: Folder with ``root.pem`` and ``ca.pem``.
    """
    folder = KEPT / "xmlsec1" / case
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "signed.xml").write_bytes(signed)
    command = ("xmlsec1", "--verify", "--id-attr:Id", SIGNED_PROPERTIES, "--enabled-key-data", "x509")
    anchors = ("--trusted-pem", str(trust / "root.pem"), "--untrusted-pem", str(trust / "ca.pem"))
    done = subprocess.run([*command, *anchors, folder / "signed.xml"], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    (folder / "verdict.txt").write_text(said)
    return done.returncode == 0 and "SignedInfo References (ok/all): 2/2" in said, said


def signxml(signed: bytes, certificate: x509.Certificate, resolve: Callable[[str], bytes] | None = None) -> bool:
    """Whether signxml passes a XAdES signature with two references by this certificate."""
    expected = XAdESSignatureConfiguration(expect_references=2)
    try:
        found = XAdESVerifier().verify(signed, x509_cert=certificate, uri_resolver=resolve, expect_config=expected)
    except (SignXMLException, LxmlError, ValueError):
        return False
    return len(found) == expected.expect_references


def signer_of(signed: bytes) -> x509.Certificate:
    """The first certificate of an XML signature's KeyInfo."""
    start = signed.index(b"<ds:X509Certificate>") + len(b"<ds:X509Certificate>")
    return x509.load_der_x509_certificate(b64decode(signed[start : signed.index(b"<", start)]))
