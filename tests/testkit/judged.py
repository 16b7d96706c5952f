"""EU DSS on files that somebody downloaded: passed at the level asked, and never with a byte changed."""

import random
import re
from io import BytesIO
from pathlib import Path

from pyhanko.pdf_utils.reader import PdfFileReader

from tests.testkit.dss import DSS, Finding, Verdict
from tests.testkit.service import Service

TWINS = 4
"""Changed copies of each file; at least one of them DSS has to read."""


class Court:
    """DSS with the trust anchor of a running service."""

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
        for number, twin in enumerate(twins(data), 1):
            verdict = self._judge(f"{case}-changed-{number}", twin, signed)
            forged = self._last(verdict)
            read += verdict.fault == "" and forged is not None
            assert forged is None or forged.indication in ("TOTAL_FAILED", "INDETERMINATE"), verdict.folder
        assert read, "DSS has read none of the changed copies"
        return one

    def _judge(self, case: str, data: bytes, signed: Path) -> Verdict:
        suffix = signed.suffix.removeprefix(".")
        return self._dss.judge(f"browser/{case}", data, self._running.trust, online=self._running.pki, suffix=suffix)

    @staticmethod
    def _last(verdict: Verdict) -> Finding | None:
        return verdict.signatures[-1] if verdict.signatures and not verdict.fault else None


def twins(signed: bytes) -> list[bytes]:
    """Copies with one bit changed inside what the last signature signs: the same ones for the same file."""
    within = _signed_octets(signed)
    found = []
    for position in random.Random(signed[:64]).sample(within, TWINS):  # noqa: S311 - the same ones for the same file
        twin = bytearray(signed)
        twin[position] ^= 1
        found.append(bytes(twin))
    return found


def _signed_octets(signed: bytes) -> list[int]:
    if signed.startswith(b"%PDF"):
        last = PdfFileReader(BytesIO(signed), strict=False).embedded_regular_signatures[-1]
        start, length, later, later_length = (int(number) for number in last.byte_range)
        return [*range(start, start + length), *range(later, later + later_length)]
    # Enveloped: texts of the document and of the signed properties; white space between tags is not for sure signed.
    signature = signed.index(b"<ds:Signature ")
    content = (each.span(1) for each in re.finditer(rb">([^<>&]+)<", signed[:signature]))
    properties = signed.index(b"<xades:SignedProperties")
    ends = signed.index(b"</xades:SignedProperties>")
    told = (each.span(1) for each in re.finditer(rb">([^<>&]+)<", signed[properties:ends]))
    found = [*(at for start, end in content for at in range(start, end))]
    return found + [properties + at for start, end in told for at in range(start, end)]
