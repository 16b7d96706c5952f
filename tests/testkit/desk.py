"""A registration office as officers work in it: by the commands, and with the papers that these write."""

import os
import re
import secrets
import string
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rubrica.newcomer import Citizen
from tests.testkit.service import Service


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What the citizen gets."""

    receipt: Path
    acceptance: Path | None
    """For a signature on paper; none where nothing new is accepted."""
    code: str
    """As it is printed on the receipt."""


class Desk:
    """Officers of both roles, entered by ``rubrica officer add``."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._folder = folder
        self.registrar = self._officer("registrar")
        self.supervisor = self._officer("supervisor")

    def register(self, person: Citizen, *, phone: str = "", language: str = "es") -> HandedOver:
        """Enter a citizen; the acceptance is to be signed on paper before the receipt is handed over."""
        done = self.command(
            *("register", "--key", self.registrar, "--nif", person.nif, "--given-name", "Ana María"),
            *("--first-surname", "Núñez", "--second-surname", "d'Ors", "--phone", phone or person.phone),
            *("--email", person.email, "--proof", "document:office-7", "--language", language),
        )
        assert done.returncode == 0, done.stderr
        acceptance, receipt = (Path(line) for line in done.stdout.split())
        return HandedOver(receipt, acceptance, code_on(receipt))

    def renew(self, person: Citizen, *, phone: str = "", supervisor: str = "", language: str = "es") -> HandedOver:
        """A new code, and another phone where one is given."""
        done = self.renewing(person, phone=phone, supervisor=supervisor, language=language)
        assert done.returncode == 0, done.stderr
        receipt = Path(done.stdout.strip())
        return HandedOver(receipt, None, code_on(receipt))

    def renewing(
        self, person: Citizen, *, phone: str = "", supervisor: str = "", language: str = "es"
    ) -> subprocess.CompletedProcess[str]:
        """The same, whether it is refused or not."""
        second = ("--supervisor", supervisor) if supervisor else ()
        given = ("--nif", person.nif, "--phone", phone, "--proof", "document:office-7", "--language", language)
        return self.command("renew", "--key", self.registrar, *given, *second)

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``rubrica officer NAME …``; papers and keys go into the desk's folder."""
        out = () if name == "verify" else ("--out", str(self._folder))
        return rubrica(self._service, "officer", name, *arguments, *out)

    def _officer(self, role: str) -> str:
        name = role + "-" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))
        done = self.command("add", name, "--nif", Citizen.draw().nif, "--role", role)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def rubrica(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command beside the running service."""
    return subprocess.run(
        [sys.executable, "-m", "rubrica", *arguments],
        env={**os.environ, "RUBRICA_VAR": str(service.folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def text_of(paper: Path) -> str:
    """What can be read on a paper."""
    done = subprocess.run(["pdftotext", "-layout", str(paper), "-"], check=True, capture_output=True, text=True)
    return done.stdout


def code_on(receipt: Path) -> str:
    """The activation code: the first thing that looks like one, before the CSV."""
    found = re.search(r"^\s*([0-9A-Z]{4}(?:-[0-9A-Z]{4,5}){3})\s*$", text_of(receipt), re.MULTILINE)
    assert found is not None, text_of(receipt)
    return found[1]


def csv_on(paper: Path) -> str:
    """The secure verification code."""
    (found,) = re.findall(r"\(CSV\): (\S+)", text_of(paper))
    return str(found)
