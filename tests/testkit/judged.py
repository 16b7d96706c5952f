"""Judges that are not ours on files that somebody downloaded: passed at the level asked, and never with a byte changed.

EU DSS is asked about each file and each changed copy; then endesive about a PDF, xmlsec1 and signxml about an XML.
"""

import random
import re
from io import BytesIO
from pathlib import Path

from asn1crypto import cms
from pyhanko.pdf_utils.reader import PdfFileReader

from tests.testkit.dss import DSS, Finding, Verdict
from tests.testkit.second_opinions import endesive, signer_of, signxml, xmlsec1
from tests.testkit.service import Service

SAMPLE = 2
"""Changed copies beyond one for each region; at least one of all of them DSS has to read."""
_TEXT = re.compile(rb">([^<>&]+)<")
_ATTRIBUTES = re.compile(rb"<[A-Za-z][^<>]*>")
_VALUE = re.compile(rb'="([^"<>&]+)"')


class Court:
    """The judges, with the trust anchor of a running service."""

    def __init__(self, dss: DSS, service: Service) -> None:
        self._dss = dss
        self._running = service.running

    def passes(self, case: str, signed: Path, form: str) -> Finding:
        """Assert that the last signature is passed without a reservation, and that each changed copy is not.

        Args:
            case: Unique name.
            signed: The very file that was downloaded.
            form: Format and level in DSS's words, for example ``PAdES-BASELINE-LTA``.
        """
        data = signed.read_bytes()
        one = self._last(self._judge(case, data, signed))
        assert one is not None
        assert (one.indication, one.sub_indication, one.format) == ("TOTAL_PASSED", "", form)
        assert (one.errors, one.warnings) == ((), ())
        assert {stamp.indication for stamp in one.timestamps} == ({"PASSED"} if form[-1] in "TA" else set())
        read = 0
        changed = twins(data)
        for name, twin in changed.items():
            verdict = self._judge(f"{case}-changed-{name}", twin, signed)
            forged = self._last(verdict)
            read += verdict.fault == "" and forged is not None
            assert forged is None or forged.indication in ("TOTAL_FAILED", "INDETERMINATE"), verdict.folder
        assert read, "DSS has read none of the changed copies"
        if data.startswith(b"%PDF"):
            self._endesive_agrees(case, data, changed, stamped=form[-1] in "TA")
        else:
            self._xml_judges_agree(case, data, changed)
        return one

    def _endesive_agrees(self, case: str, data: bytes, changed: dict[str, bytes], *, stamped: bool) -> None:
        forged = {name: changed[name] for name in ("value", "attributes")}
        said = endesive(self._running.trust / "root.pem", f"browser/{case}", {"signed": data, **forged})
        last = {name: [one for one in found if not one["document_timestamp"]][-1] for name, found in said.items()}
        told = {name: (one["hash"], one["signature"], one["certificate"]) for name, one in last.items()}
        assert told["signed"] == (True, True, True)
        assert last["signed"]["timestamp"] == (stamped or None)
        assert not any(all(told[name]) for name in forged)

    def _xml_judges_agree(self, case: str, data: bytes, changed: dict[str, bytes]) -> None:
        certificate = signer_of(data)
        passed, said = xmlsec1(f"browser/{case}/signed", data, self._running.trust)
        assert passed, said
        assert signxml(data, certificate)
        for name in ("data-text", "data-attribute", "info", "properties", "value"):
            assert not xmlsec1(f"browser/{case}/{name}", changed[name], self._running.trust)[0], name
            assert not signxml(changed[name], certificate), name

    def _judge(self, case: str, data: bytes, signed: Path) -> Verdict:
        suffix = signed.suffix.removeprefix(".")
        return self._dss.judge(f"browser/{case}", data, self._running.trust, online=self._running.pki, suffix=suffix)

    @staticmethod
    def _last(verdict: Verdict) -> Finding | None:
        return verdict.signatures[-1] if verdict.signatures and not verdict.fault else None


def twins(signed: bytes) -> dict[str, bytes]:
    """Copies with one change each: in every region of which the last signature says something, and a sample.

    They are the same ones for the same file.
    """
    regions = _pdf_regions(signed) if signed.startswith(b"%PDF") else _xml_regions(signed)
    draw = random.Random(signed[:64])  # noqa: S311 - the same ones for the same file
    chosen = {name: draw.choice(positions) for name, positions in regions.items()}
    everywhere = [position for positions in regions.values() for position in positions]
    chosen |= {f"sample-{number}": at for number, at in enumerate(draw.sample(everywhere, SAMPLE), 1)}
    encoded = {at for name in ("value", "attributes", "certificate") for at in regions.get(name, ())}
    found = {}
    for name, position in chosen.items():
        twin = bytearray(signed)
        # Hexadecimal digits and base64 stay such: another digit, not one that a reader would drop.
        twin[position] = (b"A" if twin[position] != b"A"[0] else b"B")[0] if position in encoded else twin[position] ^ 1
        found[name] = bytes(twin)
    return found


def _pdf_regions(signed: bytes) -> dict[str, list[int]]:
    """Both ranges of the last signature, and within its Contents signed attributes and value."""
    last = PdfFileReader(BytesIO(signed), strict=False).embedded_regular_signatures[-1]
    start, length, later, later_length = (int(number) for number in last.byte_range)
    contents = start + length
    octets = bytes(last.pkcs7_content)
    (signer,) = cms.ContentInfo.load(octets)["content"]["signer_infos"]
    digest = next(
        each["values"][0].native for each in signer["signed_attrs"] if each["type"].native == "message_digest"
    )

    def digits(part: bytes) -> list[int]:
        assert octets.count(part) == 1
        first = contents + 1 + 2 * octets.index(part)
        assert bytes.fromhex(signed[first : first + 2 * len(part)].decode()) == part
        # 'a' for 'A' would be the same digit.
        return [at for at in range(first, first + 2 * len(part)) if signed[at] not in b"aA"]

    return {
        "first-range": [*range(start, start + length)],
        "second-range": [*range(later, later + later_length)],
        "attributes": digits(digest),
        "value": digits(signer["signature"].native),
    }


def _xml_regions(signed: bytes) -> dict[str, list[int]]:
    """Of an enveloped signature; white space between tags is not for sure signed."""

    def within(opening: bytes, closing: bytes) -> tuple[int, int]:
        start = signed.index(opening)
        return start, signed.index(closing, start)

    def texts(start: int, end: int) -> list[int]:
        found = (each.span(1) for each in _TEXT.finditer(signed, start, end + 1))
        return [at for first, last in found if signed[first:last].strip() for at in range(first, last)]

    signature = signed.index(b"<ds:Signature ")
    tags = (each.span() for each in _ATTRIBUTES.finditer(signed, 0, signature))
    values = (each.span(1) for start, end in tags for each in _VALUE.finditer(signed, start, end))
    value = texts(*within(b"<ds:SignatureValue", b"</ds:SignatureValue>"))
    certificate = texts(*within(b"<ds:X509Certificate>", b"</ds:X509Certificate>"))
    return {
        "data-text": texts(0, signature),
        "data-attribute": [at for start, end in values for at in range(start, end)],
        "info": texts(*within(b"<ds:SignedInfo", b"</ds:SignedInfo>")),
        "properties": texts(*within(b"<xades:SignedProperties", b"</xades:SignedProperties>")),
        # The last digits of base64 may have bits that stand for nothing.
        "value": value[:-4],
        "certificate": certificate[:-4],
    }
