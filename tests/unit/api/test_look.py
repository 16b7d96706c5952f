"""Languages, assets and headers of the pages of edge and gate."""

import hashlib
import re
from base64 import b64encode
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import Request
from lxml import html

from api.gate import pages as gate_pages
from api.gate.app import create_app as create_gate
from api.look.assets import Assets
from api.look.languages import LOCALE, NAMES, SOURCE, language_of
from api.look.sentences import all_sentences, sentence
from api.problems import STATUSES
from api.web import services as web_services
from documents.pades import source as pdf_source
from documents.xades import source as xml_source

ROOT = Path(__file__).resolve().parents[3]


def messages():
    """Everything that pages may say."""
    found = set()
    for path in (ROOT / "api").glob("*/templates/*.html"):
        for _, text, _, _ in extract_from_file("jinja2.ext:babel_extract", path, options={"trimmed": "true"}):
            found.add(text)
    for path in [*(ROOT / "api" / "web").glob("*.py"), *(ROOT / "api" / "gate").glob("*.py")]:
        for _, text, _, _ in extract_from_file("python", path, keywords={"words": None}):
            found.add(text)
    return found | set(all_sentences(str).values())


@pytest.mark.parametrize("language", sorted(set(NAMES) - {SOURCE}))
def test_every_text_is_translated_with_the_same_places(language):
    with (LOCALE / f"{language}.po").open("rb") as file:
        catalogue = read_po(file, locale=language)
    texts = messages()

    assert len(texts) > 100
    for text in texts:
        entry = catalogue.get(text[0] if isinstance(text, tuple) else text)
        assert entry is not None, text
        translated = entry.string if isinstance(entry.string, tuple) else (entry.string,)
        assert all(translated), text
        places = re.compile(r"%\(\w+\)s|\{\w+\}")
        first = text[0] if isinstance(text, tuple) else text
        assert all(set(places.findall(one)) == set(places.findall(first)) for one in translated), text


def test_no_translation_is_left_over():
    reasons = {
        value
        for module in (pdf_source, xml_source)
        for value in re.findall(r'"((?:the|The) [^"]*)"', Path(str(module.__file__)).read_text(encoding="utf-8"))
    }
    with (LOCALE / "es.po").open("rb") as file:
        ids = {entry.id for entry in read_po(file) if entry.id}

    left = {one for one in ids - messages() if not any(str(one).startswith(reason) for reason in reasons)}

    assert left <= {"the document cannot be processed: reading it made the parser give up"}


def test_every_code_has_a_sentence_that_says_what_to_do():
    other = sentence("nobody knows this one", str)
    without = {code for code in STATUSES if sentence(code, str) == other}

    # What only agencies are told.
    developers = {
        "algorithm_not_allowed",
        "caller_refused",
        "method_not_allowed",
        "not_permitted",
        "idempotency_conflict",
    }
    assert without == developers | {"already_registered", "log_unavailable", "row_edited", "internal"}


@pytest.mark.parametrize(
    ("query", "cookie", "header", "language"),
    [
        ("", "", "", "es"),
        ("", "", "en-GB,en;q=0.9,es;q=0.8", "en"),
        ("", "", "fr;q=0.9, es;q=0.2, en;q=0.1", "es"),
        ("", "", "en;q=0.1, es-419;q=0.7", "es"),
        ("", "", "fr", "es"),
        ("", "", "x;q=y,,;;,en;q=", "en"),
        ("", "en", "es", "en"),
        ("lang=es", "en", "en", "es"),
        ("lang=xx", "", "en", "en"),
    ],
)
def test_the_language_is_the_chosen_one_else_the_browsers(query, cookie, header, language):
    headers = [(b"accept-language", header.encode()), (b"cookie", f"lang={cookie}".encode())]
    request = Request({"type": "http", "query_string": query.encode(), "headers": headers})

    assert language_of(request) == language


def test_an_asset_is_named_by_what_it_and_all_behind_it_hold(tmp_path):
    def made(text):
        (tmp_path / "deep.js").write_text(f"export const x = {text};")
        (tmp_path / "middle.js").write_text('import { x } from "./deep.js";')
        (tmp_path / "top.js").write_text('import "./other";\nimport {\n  x,\n} from "./middle.js";')
        return Assets(tmp_path)["top.js"]

    one, other = made("1"), made("2")

    assert one.name != other.name
    assert [asset.name.split(".")[0] for asset in one.imports] == ["deep", "middle"]
    assert f'from "./{one.imports[1].name}"'.encode() in one.body
    assert one.integrity == "sha384-" + b64encode(hashlib.sha384(one.body).digest()).decode()


@pytest.mark.parametrize("policy", [gate_pages.POLICY, web_services.POLICY])
def test_policies_allow_nothing_inline_and_nothing_foreign(policy):
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    assert rules["default-src"] == "'none'"
    assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert "unsafe" not in policy
    assert set(" ".join(rules.values()).split()) <= {"'none'", "'self'", "'script'"}
    assert ("script-src" in rules) == (policy is gate_pages.POLICY)


@pytest.fixture
async def gate():
    pem = ec.generate_private_key(ec.SECP256R1()).public_key()
    key = gate_pages.token_key_jwk(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    app = create_gate(None, None, token_key=key)  # type: ignore[arg-type] # no page here asks the core
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://gate.test") as client:
        yield client


async def test_pages_of_the_gate_load_only_what_they_name_with_its_digest(gate):
    answer = await gate.get("/activate", headers={"Accept": "text/html"})

    assert answer.headers["content-security-policy"] == gate_pages.POLICY
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", answer.text)
    named = re.findall(r'(?:href|src)="(/static/[^"]+\.(?:js|css))" integrity="([^"]+)"', answer.text)
    assert len(named) == len(re.findall(r"/static/[^\"]+\.(?:js|css)", answer.text)) > 5
    for url, integrity in named:
        asset = await gate.get(url)
        assert integrity == "sha384-" + b64encode(hashlib.sha384(asset.content).digest()).decode()
        assert "immutable" in asset.headers["cache-control"]
        behind = re.findall(r'from "\.(/[^"]+)"', asset.text)
        assert {f"/static{name}" for name in behind} <= {url for url, _ in named}


@pytest.mark.parametrize("path", ["//evil.example/activate", "/%2F/evil.example", "/%5Cevil.example", "/activate"])
async def test_the_language_switch_stays_on_this_host(gate, path):
    address = f"http://gate.example{path}?nonce=a%26b%22&lang=es"
    answer = await gate.get(address, headers={"Accept": "text/html"})
    page = html.fromstring(answer.text, base_url=address)
    page.make_links_absolute()
    switches = {link.get("hreflang"): link.get("href") for link in page.iterfind(".//a[@hreflang]")}
    assert set(switches) == set(NAMES)
    for language, link in switches.items():
        parts = urlsplit(link)
        assert parts.netloc == "gate.example"
        assert parts.path == path
        assert parse_qs(parts.query) == {"nonce": ['a&b"'], "lang": [language]}


async def test_programs_get_no_pages(gate):
    answer = await gate.get("/activate")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_token_key_of_another_kind_is_refused():
    for key in (ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256K1())):
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(ValueError, match="P-256"):
            gate_pages.token_key_jwk(pem)
