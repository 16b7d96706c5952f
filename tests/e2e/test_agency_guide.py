"""What the guide for agencies tells them to do, done: its commands, its programs, its JSON, its tables."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from api.rest.schemas import NewTransactionBody
from api.rpc.proto import signing_pb2
from rubrica_client import CitizenBrowser

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "agency.md").read_text(encoding="utf-8")
SAMPLES = ROOT / "tests" / "samples" / "good"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def first_cells(heading):
    section = GUIDE[GUIDE.index(f"\n## {heading}\n") :].split("\n## ")[1]
    return re.findall(r"^\| (.*?) \|(?: `(/.*?)` \|)?", section, re.MULTILINE)[1:]


@pytest.fixture
def desk(service, agency_pki, tmp_path, monkeypatch):
    """A folder with the agency's documents, and the commands of the guide run in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "libreoffice.pdf", "solicitud.pdf")
    shutil.copy(SAMPLES / "poppler-pdfunite.pdf", "anexo.pdf")
    shutil.copy(service.running.token_key, "tok.pem")
    (commands,) = blocks("sh")
    subprocess.run(["sh", "-ec", commands], check=True)
    key = rsa.generate_private_key(65537, 2048)
    Path("sello.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    Path("sello.pem").write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in agency_pki.issue(key)))
    entries = re.findall(r"^    rubrica (client add .*\\\n.*)$", GUIDE, re.MULTILINE)
    assert [re.findall(r"--(public-key|certificate)", entry) for entry in entries] == [["public-key"], ["certificate"]]
    environment = {**os.environ, "RUBRICA_VAR": str(service.folder)}
    for entry in entries:
        subprocess.run(["sh", "-ec", f'"{sys.executable}" -m rubrica {entry}'], check=True, env=environment)
    return tmp_path


def test_the_programs_of_the_guide(service, citizen, desk, capsys):
    addresses = {
        "https://firma.example": service.running.edge,
        "firma.example:50051": service.running.grpc,
        "12345678Z": citizen.person.nif,
        # There is no TLS on one machine.
        "grpc.ssl_channel_credentials()": "None",
    }
    send, send_by_certificate, collect, send_by_grpc, watch = blocks("python")
    known = {}

    def run(program):
        for shown, real in addresses.items():
            program = program.replace(shown, real)
        exec(compile(program, "docs/agency.md", "exec"), known)  # noqa: S102 - the guide is ours

    run(send)
    assert capsys.readouterr().out.strip() == known["created"].review_url
    with CitizenBrowser(service.token_key) as browser:
        known["result"] = browser.follow(service.approve(browser, citizen, known["created"].review_url)).result_token
    ends = time.monotonic() + 60
    while known["agency"].status(known["created"].id)["state"] != "DONE":
        assert time.monotonic() < ends
        time.sleep(0.1)
    run(collect)
    assert known["claims"]["nonce"] == "expediente-7"
    assert [each[:5] for each in known["signed"]] == [b"%PDF-"] * 2
    assert known["agency"].verify_receipt(known["receipt"], service.token_key)

    run(send_by_certificate)
    assert known["by_seal"].status(known["sealed"].id)["client_id"] == "ayuntamiento-sello"

    run(send_by_grpc)
    with CitizenBrowser(service.token_key) as browser:
        browser.follow(service.approve(browser, citizen, known["created"].review_url))
    run(watch)
    assert known["states"][-1] == "DONE"
    assert known["signed"].startswith((desk / "solicitud.pdf").read_bytes())


def test_the_tables_and_the_json_of_the_guide(service):
    (body,) = blocks("json")
    parsed = NewTransactionBody.model_validate_json(body).parsed()
    assert parsed.titles == ("Solicitud", "Anexo")
    described = httpx.get(f"{service.running.edge}/openapi.json", trust_env=False).json()["paths"]
    offered = {
        (method.upper(), path)
        for path, methods in described.items()
        for method in methods
        if path.startswith("/v1/transactions")
    }
    assert set(first_cells("REST")) == offered
    service_methods = signing_pb2.DESCRIPTOR.services_by_name["SigningService"].methods
    assert [name.strip("`") for name, _ in first_cells("gRPC")] == [method.name for method in service_methods]
    assert urlsplit(parsed.return_url).hostname == "sede.example"
