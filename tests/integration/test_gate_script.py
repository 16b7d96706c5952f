"""The gate's scripts in a real browser: the bytes of core and client, and no key but one that the pinned key signed."""

import json
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.gate.pages import make_look, token_key_jwk
from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose, open_message
from authn.registration.citizens import normalise_nif
from authn.registration.person import check_nif
from domain.errors import MalformedRequest
from rubrica_client import jws as client_jws
from tests.testkit.browser import chromium

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
ORIGIN = "http://localhost"

PARTS = """
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const part = (given) => {
  if (given === null) return null;
  if ("text" in given) return given.text;
  if ("hex" in given) return unhex(given.hex);
  if ("number" in given) return BigInt(given.number);
  return given.list.map(part);
};
const use = (name) => import(modules[name]);
"""


@pytest.fixture(scope="module")
def page():
    """A page at an origin that has the gate's modules, under the names that the gate gives them."""
    assets = make_look().assets
    served = {asset.url: asset for asset in (assets[name] for name in ("authorise.js", "enrol.js"))}
    served |= {behind.url: behind for asset in list(served.values()) for behind in asset.imports}
    with chromium() as browser:
        context = browser.new_context()

        def answer(route):
            asset = served.get(route.request.url.removeprefix(ORIGIN))
            body, kind = (asset.body, asset.media_type) if asset else (b"<!doctype html>", "text/html")
            route.fulfill(body=body, content_type=kind)

        context.route(f"{ORIGIN}/**", answer)
        opened = context.new_page()
        opened.goto(f"{ORIGIN}/")
        names = {name: assets[name].url for name in ("canonical.js", "hpke.js", "sealing.js", "statement.js")}
        opened.evaluate(f"() => {{ globalThis.modules = {json.dumps(names)}; }}")
        yield opened


def run(page, body, argument=None):
    return page.evaluate(f"async (given) => {{ {PARTS} {body} }}", argument)


def vectors(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def base64url(data):
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def test_canonical_encoding(page):
    given = vectors("canonical.json")
    for vector in given:
        # JSON of a browser has no integers beyond 2^53.
        vector["parts"] = json.loads(json.dumps(vector["parts"]), parse_int=str)

    encoded = run(
        page,
        """const { encode } = await use('canonical.js');
        return given.map((one) => hex(encode(...one.parts.map(part))));""",
        given,
    )

    assert encoded == [vector["encoded"] for vector in given]


@pytest.mark.parametrize("name", ["items.json", "references.json"])
def test_the_approved_list_and_its_digest(page, name):
    def as_the_gate_says(digest):
        return {"algorithm": digest["algorithm"], "value": base64url(bytes.fromhex(digest["value"]))}

    given = vectors(name)
    lists = [
        [
            {
                **item,
                "digests": [as_the_gate_says(digest) for digest in item["digests"]],
                "references": [
                    {**reference, "digest": as_the_gate_says(reference["digest"])}
                    for reference in item.get("references", ())
                ],
            }
            for item in vector["items"]
        ]
        for vector in given
    ]

    found = run(
        page,
        """const { encodeList, listSha256 } = await use('canonical.js');
        const both = async (items) => [hex(await encodeList(items)), hex(await listSha256(items))];
        return Promise.all(given.map(both));""",
        lists,
    )

    assert found == [[vector["list"], vector["sha256"]] for vector in given]


def test_key_derivation(page):
    given = vectors("kdf.json")

    found = run(
        page,
        """const { derive } = await use('sealing.js');
        return Promise.all(given.map(async (one) => hex(await derive(one.label, ...one.parts.map(part)))));""",
        given,
    )

    assert found == [vector["key"] for vector in given]


SEAL = """
const { seal, envelopeInfo } = await use('sealing.js');
const bytes = (text) => (text === null ? undefined : unhex(text));
return Promise.all(given.messages.map(async (message) => {
  const challenge = { nonce: unhex(message.nonce), sapId: message.sap_id, sapPublicKey: unhex(given.sap_public_key) };
  const context = {
    purpose: message.purpose,
    subject: message.subject,
    listSha256: bytes(message.list_sha256),
    clientId: message.client_id,
    challengeId: message.challenge_id,
  };
  const envelope = await seal(challenge, context, ...message.secrets.map(unhex));
  return [hex(envelopeInfo(challenge, context)), envelope];
}));
"""


def test_the_core_opens_what_the_page_sealed_and_only_for_that_step(page):
    given = vectors("envelope.json")
    point = bytes.fromhex(given["sap_public_key"])
    private = ec.derive_private_key(int(given["sap_private_key"], 16), ec.SECP256R1())

    sealed = run(page, SEAL, given)

    assert len(sealed) == len(given["messages"]) > 0
    for message, (info, envelope) in zip(given["messages"], sealed, strict=True):
        assert info == message["info"]
        received = Envelope(
            sap_id=envelope["sap_id"],
            nonce=unbase64url(envelope["nonce"]),
            enc=unbase64url(envelope["enc"]),
            ciphertext=unbase64url(envelope["ciphertext"]),
        )
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), received.enc)
        shared = private.exchange(ec.ECDH(), peer)
        opened = open_message(shared, received, point, context_of(message))
        assert [opened.secret.hex(), opened.companion.hex()] == message["secrets"]
        with pytest.raises(MalformedRequest):
            open_message(shared, received, point, context_of({**message, "client_id": "another"}))
    encs = {envelope["enc"] for _, envelope in sealed}
    assert len(encs) == len(sealed)  # a fresh ephemeral key each


def context_of(message):
    return EnvelopeContext(
        purpose=EnvelopePurpose(message["purpose"]),
        subject=message["subject"],
        list_sha256=bytes.fromhex(message["list_sha256"]) if message["list_sha256"] else None,
        client_id=message["client_id"],
        challenge_id=message["challenge_id"],
    )


def unbase64url(text):
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_answer_opens_for_its_browser_only(page):
    answer = vectors("envelope.json")["answer"]
    body = """
    const { openAnswer } = await use('sealing.js');
    const { base64url } = await use('canonical.js');
    try {
      return hex(await openAnswer(base64url(unhex(given.sealed)), unhex(given.cs), given.challenge_id));
    } catch { return 'shut'; }
    """

    assert run(page, body, answer) == answer["token"]
    assert run(page, body, {**answer, "cs": "ff" * 32}) == "shut"
    assert run(page, body, {**answer, "challenge_id": "another"}) == "shut"


CHECK = """
const { checkedChallenge } = await use('statement.js');
try { return hex((await checkedChallenge(given.answer, given.key)).sapPublicKey); }
catch (error) { return error.constructor.name; }
"""


def test_only_a_key_that_the_pinned_one_vouches_for_is_sealed_to(page):
    token, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    sap = point_of(ec.generate_private_key(ec.SECP256R1()))
    claims = {"sap_id": "sap", "key": base64url(sap), "nbf": 1, "exp": 2}

    def judged(changed=None, *, by=token, kind="sap+jwt", exp=2):
        statement = client_jws.sign({"typ": kind}, {**claims, "exp": exp}, by)
        answer = {"nonce": base64url(b"n" * 16), "sap_id": "sap", "sap_public_key": base64url(sap)}
        pem = token.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        given = {"answer": {**answer, "statement": statement, **(changed or {})}, "key": token_key_jwk(pem)}
        return run(page, CHECK, given)

    other = base64url(point_of(stranger))
    assert judged() == sap.hex()
    assert judged(by=stranger) == "StatementInvalid"
    assert judged(kind="result+jwt") == "StatementInvalid"
    assert judged({"sap_public_key": other}) == "StatementInvalid"
    assert judged({"sap_id": "another"}) == "StatementInvalid"
    assert judged(exp=None) == "StatementInvalid"
    assert judged({"statement": "no.jws"}) == "StatementInvalid"
    header = base64url(json.dumps({"alg": "none", "typ": "sap+jwt"}).encode())
    unsigned = f"{header}.{base64url(json.dumps(claims).encode())}."
    assert judged({"statement": unsigned}) == "StatementInvalid"


def point_of(private):
    return private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_a_nif_is_judged_as_the_core_judges_it(page):
    letters = string.ascii_uppercase
    typed = [f"{first}1234567{letter}" for first in "0189XYZKLMABTÑ" for letter in letters]
    typed += ["12.345.678-z", " x1234567 l", "1234567L", "123456789Z", "", "Z", "12345678"]

    found = run(page, "const { isNif } = await use('canonical.js'); return given.map(isNif);", typed)

    assert found == [as_the_core(each) for each in typed]
    assert sum(found) == 10 + 2


def as_the_core(typed):
    try:
        check_nif(normalise_nif(typed))
    except MalformedRequest:
        return False
    return True
