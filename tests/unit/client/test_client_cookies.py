import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rubrica_client import CitizenBrowser

COOKIE = "__Host-rubrica-1=abc; HttpOnly; Path=/; SameSite=lax; Secure"


def sent_back(origin: str, cookie: str = COOKIE) -> str | None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        page = {"transaction_id": "t", "state": "REVIEWED", "client_name": "", "request_id": "r", "gate_url": ""}
        return httpx.Response(200, json={**page, "documents": []}, headers={"set-cookie": cookie})

    token_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with CitizenBrowser(token_key, edge_transport=httpx.MockTransport(answer)) as browser:
        browser.review(f"{origin}/review/x")
        browser.follow(f"{origin}/return?request=r&code=c")
    header: str | None = seen[1].headers.get("cookie")
    return header


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "http://localhost:8080", "https://firma.example"])
def test_a_browser_gives_secure_cookies_back_where_it_is_safe(origin: str) -> None:
    assert sent_back(origin) == "__Host-rubrica-1=abc"


def test_and_nowhere_else() -> None:
    assert sent_back("http://firma.example") is None


def test_a_host_cookie_without_its_attributes_is_not_believed() -> None:
    assert sent_back("http://127.0.0.1:8080", "__Host-rubrica-1=abc; Path=/") is None
