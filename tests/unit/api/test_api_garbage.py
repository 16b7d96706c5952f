"""Whatever comes in, every refusal is a problem with a code, nothing is a 5xx, and OpenAPI says so."""

import inspect
import random
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from api import problems
from api.problems import STATUSES, LastResort
from domain import errors
from domain.errors import by_code
from rubrica.logs import configure_logs
from tests.testkit.edge import RETURN_URL as RETURN
from tests.testkit.edge import an_edge


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


async def check_answer(answer: httpx.Response, declared: dict[str, Any], where: str) -> None:
    assert answer.status_code < 500, (where, answer.text)
    assert str(answer.status_code) in declared, (where, answer.status_code)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", where
        assert answer.request.method == "HEAD" or answer.json()["code"] in STATUSES


async def test_garbage_gets_a_problem_and_never_a_fault(tmp_path: Path) -> None:
    seed = 20261122
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    async with an_edge(tmp_path) as edge:
        _, link = await edge.own_transaction()
        for app, client in ((edge.app, edge.browser()), (edge.gate_app, edge.gate())):
            for method, template, operation in operations(app):
                if template.endswith("z"):
                    continue
                for _ in range(12):
                    values = ["0", "1", "-1", "999999999999", "%00", "%2e%2e", "ñ", "A" * 70, "{}", link]
                    path = template
                    while "{" in path:
                        path = path[: path.index("{")] + dice.choice(values) + path[path.index("}") + 1 :]
                    content = dice.choice(
                        [b"", b"{}", b"[]", b"null", b'"', b"\xff\xfe", b"[" * 2000, dice.randbytes(200)]
                    )
                    headers = {
                        "Content-Type": dice.choice(["application/json", "application/pdf", "text/plain", ""]),
                        "Idempotency-Key": dice.choice(["", "k" * 40, "k" * 300]),
                        "Authorization": dice.choice(["", "Bearer", f"Bearer {link}", "Bearer a.b.c", "Basic eA=="]),
                        "Cookie": dice.choice(["", "a=b", ";;;=", f"__Host-rubrica-{'0' * 26}=x"]),
                    }
                    query = dice.choice(["", "?request=&code=", "?request=x&code=%00", "?request=x&code=A", "?code"])
                    answer = await client.request(method, path + query, content=content, headers=headers)
                    declared = operation["responses"] if answer.status_code not in {404, 405} else {"404", "405"}
                    await check_answer(answer, dict.fromkeys(declared), f"seed {seed}: {method} {path}{query}")


async def test_addresses_that_are_none(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        for client in (edge.browser(), edge.gate()):
            for method, path, status, code in (
                ("GET", "/x", 404, "not_found"),
                ("PATCH", "/healthz", 405, "method_not_allowed"),
                ("GET", "/v1/transactions/", 404, "not_found"),
            ):
                answer = await client.request(method, path)
                assert (answer.status_code, answer.json()["code"]) == (status, code)
                assert ("allow" in answer.headers) == (status == 405)
                assert answer.headers["content-type"] == "application/problem+json"


def any_json(dice: random.Random, depth: int = 3) -> Any:
    leaves = [
        None,
        True,
        0,
        -1,
        2**70,
        1.5,
        "",
        "x" * 600,
        "\u202e",
        "\x00",
        "ñ",
        "B-LTA",
        "ES256",
        "12345678Z",
        RETURN,
    ]
    if depth == 0 or dice.random() < 0.4:
        return dice.choice(leaves)
    if dice.random() < 0.5:
        return [any_json(dice, depth - 1) for _ in range(dice.randrange(4))]
    names = ["title", "documents", "level", "algorithm", "citizen_nif", "return_url", "nonce", "x"]
    return {dice.choice(names): any_json(dice, depth - 1) for _ in range(dice.randrange(5))}


async def test_any_json_is_answered(tmp_path: Path) -> None:
    seed = 20261122
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    created = 0
    async with an_edge(tmp_path) as edge:
        client = edge.browser()
        declared = edge.app.openapi()["paths"]["/v1/transactions"]["post"]["responses"]
        for number in range(200):
            good: dict[str, Any] = {"documents": [{"title": "x"}], "level": "B-B"}
            body = any_json(dice) if number % 2 else {**good, dice.choice([*good, "nonce"]): any_json(dice)}
            answer = await client.post("/v1/transactions", json=body, headers={"Idempotency-Key": f"{number:040}"})
            await check_answer(answer, declared, f"seed {seed}: {body!r}")
            created += answer.status_code == 201
    assert created  # some of it was good


async def test_openapi_is_3_1_and_declares_every_refusal(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        for app, client in ((edge.app, edge.browser()), (edge.gate_app, edge.gate())):
            document = (await client.get("/openapi.json")).json()
            assert document["openapi"].startswith("3.1")
            assert document == app.openapi()
            assert set(document["components"]["schemas"]["Problem"]["required"]) >= {"type", "code", "detail"}
            assert "HTTPValidationError" not in document["components"]["schemas"]
            for method, path, operation in operations(app):
                for status, answer in operation["responses"].items():
                    if int(status) >= 400:
                        assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
                # Who opens a link twice has opened it, and there is nothing to make twice.
                if method == "POST" and path != "/review/{link_token}":
                    names = {parameter["name"] for parameter in operation["parameters"]}
                    assert "Idempotency-Key" in names, path


def test_every_code_has_a_status() -> None:
    assert set(by_code()) == set(STATUSES)
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.RubricaError)]
    assert {kind.code for kind in kinds} == set(STATUSES)


async def test_a_bug_is_a_500_that_tells_nothing(capsys: Any) -> None:
    configure_logs("info")  # anew, to where this test looks
    app = FastAPI()

    @app.get("/")
    async def broken() -> None:
        held = "can" + "ary"
        assert held
        raise ValueError("the secret is 123456")

    problems.install(app)
    app.add_middleware(LastResort)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "123456" not in answer.text
    event = answer.json()["instance"].removeprefix("urn:rubrica:event:")
    told = capsys.readouterr().out
    assert event in told
    # Where it happened, with the exception's own words, and no variable of the frames on the way.
    assert "in broken" in told
    assert "canary" not in told
