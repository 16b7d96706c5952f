"""Forms with files: what is kept of them, and what is refused before anything is."""

from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from api.web import forms
from domain.errors import MalformedRequest, RubricaError

EACH_BYTES = 1000
MOST = 2


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()

    @app.post("/")
    async def take(request: Request) -> JSONResponse:
        try:
            async with forms.files(request, each_bytes=EACH_BYTES, most=MOST) as found:
                return JSONResponse({name: [file.size for file in each] for name, each in found.items()})
        except RubricaError as error:
            return JSONResponse(error.code, status_code=400)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge.example") as found:
        yield found


def chosen(*sizes: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [("documents", (f"{number}.pdf", b"x" * size)) for number, size in enumerate(sizes)]


async def test_of_a_file_that_is_too_large_one_octet_more_than_fits_is_kept(client: httpx.AsyncClient) -> None:
    for sizes, kept in (
        ((10, EACH_BYTES - 10), [10, EACH_BYTES - 10]),
        ((EACH_BYTES,), [EACH_BYTES]),
        ((1990, 5), [EACH_BYTES + 1, 5]),
    ):
        assert (await client.post("/", files=chosen(*sizes))).json() == {"documents": kept}


async def test_a_form_over_the_whole_is_refused(client: httpx.AsyncClient) -> None:
    over = await client.post("/", files=chosen(MOST * EACH_BYTES + forms.FORM_OVERHEAD_BYTES))

    assert (over.status_code, over.json()) == (400, "document_too_large")


@pytest.mark.parametrize(
    ("declared_bytes", "read"), [(forms.DRAINED_BYTES, 3), (forms.DRAINED_BYTES + 1, 0)], ids=["drained", "unread"]
)
async def test_beyond_what_is_thrown_away_nothing_is_read(declared_bytes: int, read: int) -> None:
    pieces = [b"a", b"b", b"c"]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(b"content-length", str(declared_bytes).encode()), (b"content-type", b"multipart/form-data")],
    }
    with pytest.raises(RubricaError, match="larger than this service takes"):
        async with forms.files(Request(scope, receive), each_bytes=EACH_BYTES, most=MOST):
            pass

    assert 3 - len(pieces) == read


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--c\r\nnot a part"),
        ({"Content-Type": "multipart/form-data"}, b"x"),
        ({"Content-Type": "application/pdf"}, b"%PDF"),
        ({}, b"x"),
    ],
)
async def test_what_is_no_form_with_files(
    client: httpx.AsyncClient, headers: Mapping[str, str], content: bytes
) -> None:
    assert (await client.post("/", headers=headers, content=content)).json() == "malformed_request"


async def test_too_many_files_and_bodies_without_a_length(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    assert (await client.post("/", files=chosen(1, 1, 1))).json() == "malformed_request"
    assert (await client.post("/", headers={"Sec-Fetch-Site": "cross-site"}, files=chosen(1))).json() == "not_permitted"
    assert (await client.post("/", content=endless())).json() == "malformed_request"


@pytest.mark.parametrize(
    ("title", "stem"),
    [(".", ""), ("..", ""), (". .", ""), (".profile", "profile"), ("a/b", "a b"), ("../x", "x"), ("v1.2", "v1.2")],
)
def test_a_file_that_is_fetched_is_never_hidden_by_its_title(title: str, stem: str) -> None:
    assert forms.file_stem(title) == stem


async def test_a_form_with_too_many_files_is_told_from_one_that_is_none() -> None:
    for content, content_type, kind in (
        (
            b"".join(b'--x\r\nContent-Disposition: form-data; name="d"; filename="a"\r\n\r\n1\r\n' for _ in range(3))
            + b"--x--\r\n",
            b"multipart/form-data; boundary=x",
            forms.TooManyFiles,
        ),
        (b"nonsense", b"multipart/form-data; boundary=x", MalformedRequest),
        (b"nonsense", b"", MalformedRequest),
    ):

        async def receive(body: bytes = content) -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", content_type)]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        with pytest.raises(MalformedRequest) as refused:
            async with forms.files(request, each_bytes=EACH_BYTES, most=MOST):
                pass
        assert type(refused.value) is kind
