"""Papers as they come out of the press, and a press child that would do something else."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pikepdf
import pytest

from authn.registration.papers import Language, Paper, PaperKind
from documents.validate import validate
from domain.digests import Digest
from domain.errors import DependencyUnavailable, IssuerUnavailable
from rubrica.press import Press, PressLimits
from signer.seal import SealedDigest
from signer.tbs.cms import signed_attributes
from tests.testkit.pki import InMemoryPKI

AT = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
CODE = "ABCD-EFGH-JKMN-PQRST"


class SoftwareSeal:
    """The seal's port over a software key of the development PKI."""

    def __init__(self) -> None:
        self.pki = InMemoryPKI()
        self.certified = self.pki.certify()
        self.asked: list[Digest] = []
        self.fault: Exception | None = None

    async def sign(self, digest: Digest) -> SealedDigest:
        self.asked.append(digest)
        if self.fault is not None:
            raise self.fault
        to_be_signed = signed_attributes(digest, self.certified.chain[0], {})
        return SealedDigest(to_be_signed, self.certified.sign(to_be_signed), self.certified.chain)


def a_paper(kind: PaperKind = PaperKind.RECEIPT, language: Language = Language.ES, **changes: str) -> Paper:
    fields = {
        "service": "Rúbrica",
        "organisation": "Ayuntamiento de Ejemplo",
        "name": "María Núñez Ibáñez",
        "nif": "12345678Z",
        "phone": "+34612345678",
        "email": "maria@example.org",
        "level": "advanced",
        "date": "2026-11-22 18:30",
        "officer": "office-7.ana",
        "proof": "document:office-7",
        "conditions": "2026-11",
        "accepted": "2026-11",
        "activation_code": CODE,
        "activate_at": "gate.example",
        "valid_until": "2027-01-21",
        "csv": "0123-4567-89AB-CDEFG",
        "verify_at": "https://edge.example/verify",
    }
    return Paper(kind=kind, language=language, fields={**fields, **changes})


def tool(name: str, *words: str | Path, given: bytes = b"") -> str:
    """What a tool of the distribution says; pdfsig's status tells of the anchor, which it does not know."""
    return subprocess.run([name, *words], input=given, capture_output=True, check=False).stdout.decode()


def text_of(pdf: bytes) -> str:
    return " ".join(tool("pdftotext", "-layout", "-", "-", given=pdf).split())


@pytest.fixture
def seal() -> SoftwareSeal:
    return SoftwareSeal()


@pytest.mark.parametrize("language", Language)
async def test_a_receipt_says_everything_and_is_sealed(seal: SoftwareSeal, language: Language, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    paper = a_paper(language=language)
    pdf = await Press(seal).make(paper, now)

    text = text_of(pdf)
    hidden = {"level", "service"}
    assert {name for name, value in paper.fields.items() if name not in hidden and value not in text} == set()
    title = {"es": "Resguardo de registro", "en": "Receipt of registration"}[language]
    assert title in text
    path = tmp_path / "receipt.pdf"
    path.write_bytes(pdf)
    info = tool("pdfinfo", path)
    assert "Tagged:          yes" in info
    with pikepdf.open(path) as opened:
        assert str(opened.Root.Lang) == language
    assert b"<pdfuaid:part>1" in pdf
    assert b"<pdfaid:part>2" in pdf
    seen = tool("pdfsig", path)
    assert "Signature is Valid" in seen
    assert "Total document signed" in seen
    with path.open("rb") as file:
        report = await asyncio.to_thread(validate, file, seal.pki.trust, datetime.now(UTC))
    assert (report.indication, report.signatures[0].level) == ("TOTAL-PASSED", "B-B")
    assert report.signatures[0].signing_time == now


async def test_a_changed_paper_is_no_longer_sealed(seal: SoftwareSeal, tmp_path: Path) -> None:
    pdf = await Press(seal).make(a_paper(), datetime.now(UTC))
    path = tmp_path / "forged.pdf"
    place = pdf.index(b"/Type")
    path.write_bytes(pdf[:place] + b"/tYpe" + pdf[place + 5 :])
    seen = tool("pdfsig", path)
    assert "Signature is Valid" not in seen


async def test_an_acceptance_holds_the_conditions_and_no_code(seal: SoftwareSeal) -> None:
    text = text_of(await Press(seal).make(a_paper(PaperKind.ACCEPTANCE), datetime.now(UTC)))
    assert "Condiciones de uso, versión 2026-11" in text
    assert "se atribuyen a la persona registrada" in text
    assert "Fecha y firma" in text
    assert CODE not in text


async def test_what_is_typed_is_never_markup(seal: SoftwareSeal) -> None:
    evil = '#panic("x") *b* $a$ @r <l> \\ "] #read("/etc/passwd")'
    assert " ".join(evil.split()) in text_of(await Press(seal).make(a_paper(name=evil), datetime.now(UTC)))


async def test_the_child_reaches_nothing(seal: SoftwareSeal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUBRICA_CORE_DATABASE_URL", "secret")
    answer = await Press(seal, work="tests.testkit.hostile_press").make(a_paper(), AT)
    assert answer == b"worked= environment=LC_ALL,PYTHONPATH,RAYON_NUM_THREADS"


@pytest.mark.parametrize(
    "body",
    [
        "#for i in range(100000) { for j in range(100000) { let x = i + j } }",
        '#let a = "xxxxxxxx"\n#for _ in range(40) { a = a + a }',
        '#read("/etc/hostname")',
        "#this-is-not-there",
    ],
    ids=["looping", "eating", "reading", "broken"],
)
async def test_a_template_that_goes_wrong_is_ended(seal: SoftwareSeal, tmp_path: Path, body: str) -> None:
    for name in ("letter", "conditions-2026-11", "receipt"):
        (tmp_path / f"{name}.typ").write_text(body if name == "receipt" else "")
    limits = PressLimits(cpu_seconds=3, wall_seconds=25)
    started = time.monotonic()
    with pytest.raises(DependencyUnavailable) as refused:
        await Press(seal, limits, templates=tmp_path).make(a_paper(), AT)
    assert refused.type is DependencyUnavailable
    assert CODE not in str(refused.value)
    assert seal.asked == []
    assert time.monotonic() - started < 24


async def test_without_a_seal_there_is_no_paper_and_no_child_left(seal: SoftwareSeal) -> None:
    seal.fault = IssuerUnavailable("no certificate")
    with pytest.raises(IssuerUnavailable):
        await Press(seal).make(a_paper(), AT)
    await asyncio.sleep(0)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not any(b"rubrica.press" in command for command in commands)


def test_the_core_s_own_process_loads_no_parser() -> None:
    heavy = {"pyhanko", "pikepdf", "lxml", "typst", "documents"}
    code = "import sys, rubrica.core; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = {name for name in done.stdout.split() if name.split(".")[0] in heavy}
    assert loaded == {"documents", "documents.model", "documents.wire"}, "the words that it exchanges with its press"
