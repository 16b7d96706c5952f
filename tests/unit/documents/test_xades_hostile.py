"""XML made to hurt: refused through the limited child with a clear sentence, and nothing is read on the way."""

import socket

import pytest

from documents.child import DocumentWorker
from documents.model import XAdESOptions
from documents.xades.source import (
    ATTRIBUTE_LIMIT,
    ATTRIBUTE_LIMIT_CHARACTERS,
    BROKEN,
    DEPTH_LIMIT,
    ENCODING,
    NO_DTD,
    NO_XML,
    NODE_LIMIT,
    OUTSIDE,
    TOO_DEEP,
    TWO_IN_ONE,
    XML_LIMIT_BYTES,
    scan,
)
from domain.clock import SystemClock
from domain.errors import RubricaError
from domain.items import Packaging

OPTIONS = [
    XAdESOptions(packaging=packaging, mime_type="application/xml", content_name="a.xml") for packaging in Packaging
]
LARGE_BYTES = 500_000
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


def _attributes(count: int) -> str:
    return " ".join(f'b{number}=""' for number in range(count))


def _declarations(count: int) -> str:
    return " ".join(f'xmlns:b{number}="u"' for number in range(count))


def hostile(secret: str, url: str) -> dict[str, tuple[bytes, str]]:
    """By name: the document, and a piece of the sentence that refuses it."""
    include = "http://www.w3.org/2001/XInclude"
    xslt = "http://www.w3.org/1999/XSL/Transform"
    transform = "http://www.w3.org/TR/1999/REC-xslt-19991116"
    dsig = "http://www.w3.org/2000/09/xmldsig#"
    texts = {
        "PDF in a comment": ("<!-- %PDF-1.7 --><a/>", TWO_IN_ONE),
        "document type": ("<!DOCTYPE a><a/>", NO_DTD),
        "external document type": (f'<!DOCTYPE a SYSTEM "{url}"><a/>', NO_DTD),
        "external entity": (f'<!DOCTYPE a [<!ENTITY e SYSTEM "{secret}">]><a>&e;</a>', NO_DTD),
        "parameter entity": (f'<!DOCTYPE a [<!ENTITY % e SYSTEM "{url}"> %e;]><a/>', NO_DTD),
        "billion laughs": (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>', NO_DTD),
        "quadratic": (f'<!DOCTYPE a [<!ENTITY l "{"a" * 10000}">]><a>{"&l;" * 10000}</a>', NO_DTD),
        "entity that nobody declared": ("<a>&e;</a>", BROKEN),
        "XInclude": (f'<a xmlns:x="{include}"><x:include href="{secret}" parse="text"/></a>', OUTSIDE),
        "XInclude by default": (f'<include xmlns="{include}" href="{url}"/>', OUTSIDE),
        "style sheet": (f'<?xml-stylesheet type="text/xsl" href="{url}"?><a/>', OUTSIDE),
        "XSLT": (f'<s:stylesheet xmlns:s="{xslt}" version="1.0"/>', OUTSIDE),
        "XSLT transform": (
            f'<Signature xmlns="{dsig}"><Transform Algorithm="{transform}"/></Signature>',
            OUTSIDE,
        ),
        "depth": ("<a>" * 100_000 + "</a>" * 100_000, TOO_DEEP),
        "depth by one": ("<a>" * (DEPTH_LIMIT + 1) + "</a>" * (DEPTH_LIMIT + 1), TOO_DEEP),
        "a huge attribute": (f'<a b="{"c" * (ATTRIBUTE_LIMIT_CHARACTERS + 1)}"/>', "too long"),
        "many attributes": (f"<a {_attributes(ATTRIBUTE_LIMIT + 1)}/>", "too many"),
        "many elements": (f"<a>{'<b/>' * NODE_LIMIT}</a>", "elements"),
        "many comments": (f"<a>{'<!---->' * NODE_LIMIT}</a>", "elements"),
        "many instructions": (f"<a>{'<?a?>' * NODE_LIMIT}</a>", "elements"),
        "many declarations": (f"<a>{f'<b {_declarations(100)}/>' * (NODE_LIMIT // 100)}</a>", "elements"),
        "one long text": (f"<a>{'t' * 11_000_000}</a>", "XML"),
        "version 1.1": ('<?xml version="1.1"?><a/>', "version"),
        "an attribute twice": ('<a b="1" b="2"/>', BROKEN),
        "a prefix that nobody declared": ("<x:a/>", BROKEN),
        "two roots": ("<a/><b/>", BROKEN),
        "not closed": ("<a><b></a>", BROKEN),
        "no XML": ("Hola", NO_XML),
        "UTF-7": ('<?xml version="1.0" encoding="UTF-7"?>+ADwAYQA+-', ENCODING),
        "EBCDIC by name": ('<?xml version="1.0" encoding="cp037"?><a/>', ENCODING),
        "Shift-JIS": ('<?xml version="1.0" encoding="Shift_JIS"?><a/>', ENCODING),
        "UTF-16 by name": ('<?xml version="1.0" encoding="UTF-16"?><a/>', ENCODING),
    }
    octets = {
        "UTF-16": ('\ufeff<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>'.encode("utf-16-le"), ENCODING),
        "UTF-16 without a mark": ("<!DOCTYPE a><a/>".encode("utf-16-be"), ENCODING),
        "UTF-32": ("<!DOCTYPE a><a/>".encode("utf-32-le"), ENCODING),
        "Latin-1 that says UTF-8": ("<a>ñ</a>".encode("latin-1"), BROKEN),
        "overlong UTF-8": (b"<a>\xc0\xbc</a>", BROKEN),
        "a zero": (b"<a>\0</a>", NO_XML),
        "too large": (b"<a>" + b" " * XML_LIMIT_BYTES + b"</a>", "bytes"),
    }
    return {**{name: (text.encode(), why) for name, (text, why) in texts.items()}, **octets}


@pytest.fixture(scope="module")
def listener():
    """Somebody who would notice a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        yield server


async def test_refused_in_the_child_with_a_sentence_and_nothing_is_read(tmp_path, listener):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    read_before = secret.stat().st_atime_ns
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    source, destination = tmp_path / "in.xml", tmp_path / "out.xml"
    async with DocumentWorker(SystemClock()) as worker:
        for name, (data, why) in hostile(secret.as_uri(), url).items():
            source.write_bytes(data)
            # Large ones once: every packaging goes by the same first pass.
            for options in OPTIONS if len(data) < LARGE_BYTES else OPTIONS[:1]:
                with pytest.raises(RubricaError) as refused:
                    await worker.prepare(source, destination, options)
                assert refused.value.code in {"unsupported_document", "document_too_large"}, name
                assert why in refused.value.public_detail, name
                assert "secret" not in refused.value.public_detail
                assert not destination.exists()
    assert secret.stat().st_atime_ns == read_before
    with pytest.raises(TimeoutError):
        listener.accept()


def test_just_within_the_limits_is_accepted():
    for data in (
        b"<a>" * DEPTH_LIMIT + b"</a>" * DEPTH_LIMIT,
        f"<a {_attributes(ATTRIBUTE_LIMIT)}/>".encode(),
        b'<a b="' + b"c" * ATTRIBUTE_LIMIT_CHARACTERS + b'"/>',
        '<?xml version="1.0" encoding="iso-8859-1"?><a>ñ</a>'.encode("latin-1"),
        b'<?xml version="1.0" encoding="us-ascii" standalone="yes"?><a>&#241;&lt;</a>',
        b"\xef\xbb\xbf<a/>",
        b"\n<a><!-- <!DOCTYPE a> --><![CDATA[<!DOCTYPE a>]]></a>",
    ):
        assert scan(data).tree().getroot().tag == "a"
