"""EU DSS as a judge: one JVM for many files, and its own reports kept for each case."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.testkit.pki import PROJECT

INTEROP = PROJECT / "tests" / "interop"
PROGRAM = INTEROP / "dss" / "target"
KEPT = PROJECT / "var" / "interop" / "dss"
REPORTS = ("simple.xml", "detailed.xml", "diagnostic.xml", "etsi.xml")


@dataclass(frozen=True, slots=True)
class Stamp:
    """A timestamp of a signature."""

    indication: str
    sub_indication: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What DSS says of one signature, in its own words."""

    indication: str
    """TOTAL_PASSED, INDETERMINATE, TOTAL_FAILED."""
    sub_indication: str
    format: str
    """For example PAdES-BASELINE-LTA."""
    signed_by: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    timestamps: tuple[Stamp, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What DSS says of one file."""

    signatures: tuple[Finding, ...]
    fetched: tuple[str, ...]
    """Addresses it asked."""
    refused: tuple[str, ...]
    """Addresses it wanted to ask and was not allowed to."""
    fault: str
    """Why it could not read the file at all; else empty."""
    folder: Path
    """Holds the file and DSS's reports."""

    @property
    def passed(self) -> bool:
        """Whether it is signed, and every signature is TOTAL_PASSED."""
        return bool(self.signatures) and all(one.indication == "TOTAL_PASSED" for one in self.signatures)


def prepare_judges() -> None:
    """Build the program and fill endesive's environment where that has not been done.

    Raises:
        RuntimeError: Something is missing: a judge that does not judge is a failure, not a reason to go without.
    """
    done = subprocess.run([INTEROP / "prepare"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the judges are not ready: {done.stdout}{done.stderr}")


class DSS:
    """The running program; close it at the end."""

    def __init__(self) -> None:
        prepare_judges()
        KEPT.mkdir(parents=True, exist_ok=True)
        self._log = (KEPT / f"log-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.txt").open("wb")
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                f"{PROGRAM / 'classes'}:{PROGRAM / 'lib'}/*",
                "rubrica.interop.Judge",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )

    def judge(
        self,
        case: str,
        signed: bytes,
        trust: Path,
        *,
        online: str | None = None,
        content: bytes | None = None,
        content_name: str = "content",
        suffix: str = "pdf",
    ) -> Verdict:
        """Validate ``signed`` by DSS's default policy.

        Args:
            case: Unique name; also that of the folder below ``var/interop/dss`` with file and reports.
            signed: The signed file.
            trust: Folder whose ``root.pem`` is the only trust anchor.
            online: Scheme, host and port that DSS may ask; without it, it sees the ``*.crl`` of ``trust`` only.
            content: What was signed, where the signature is detached from it.
            content_name: The file's name, which DSS compares with the one that the signature refers to.
            suffix: Of the kept file's name.

        Raises:
            RuntimeError: The program has ended, which no file may bring about.
        """
        folder = KEPT / case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file = folder / f"signed.{suffix}"
        file.write_bytes(signed)
        job = {"file": str(file), "trust": str(trust), "online": online, "reports": str(folder)}
        if content is not None:
            (folder / content_name).write_bytes(content)
            job["content"] = str(folder / content_name)
        return _verdict(self._ask(job), folder)

    def _ask(self, job: dict[str, str | None]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"DSS has ended: {Path(self._log.name).read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End the program."""
        self._process.communicate(timeout=30)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _verdict(answer: dict[str, Any], folder: Path) -> Verdict:
    return Verdict(
        tuple(_finding(one) for one in answer["signatures"]),
        tuple(answer["fetched"]),
        tuple(answer["refused"]),
        answer.get("fault", ""),
        folder,
    )


def _finding(one: dict[str, Any]) -> Finding:
    return Finding(
        one["indication"],
        one["subIndication"],
        one["format"],
        one.get("signedBy", ""),
        tuple(one["errors"]),
        tuple(one["warnings"]),
        tuple(
            Stamp(stamp["indication"], stamp["subIndication"], tuple(stamp["errors"]), tuple(stamp["warnings"]))
            for stamp in one["timestamps"]
        ),
    )
