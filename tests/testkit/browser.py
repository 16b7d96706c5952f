"""A real browser before the running service, and a record of everything that it sends."""

import base64
import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Route,
    ViewportSize,
    expect,
    sync_playwright,
)

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 900}
_ESCAPED = re.compile(rb'\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|(["\\/]))')
SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL)
SHAPE = """() => [...document.querySelectorAll("main *")].filter(each => each.checkVisibility())
    .map(each => `${each.tagName}#${each.id}.${each.className}`).join(" ")"""
"""What a page shows, whatever its language."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Sent:
    """Everything that pages sent: addresses, every header (cookies too), bodies, frames of web sockets."""

    raw: list[bytes] = field(default_factory=list)

    def watch(self, context: BrowserContext, page: Page) -> None:
        """Record what this context sends from now on."""
        context.on("request", self._note)
        page.on("websocket", lambda socket: socket.on("framesent", self._frame))
        # The browser itself says what it put on the wire; what Playwright shows at once lacks cookies and others.
        wire = context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.on("Network.requestWillBeSent", self._on_wire)
        wire.on("Network.requestWillBeSentExtraInfo", lambda event: self._add("", event["headers"]))

    def holds(self, secret: str) -> bool:
        """Whether ``secret`` went out in clear, in whatever simple coding."""
        octets = secret.encode()
        coded = {octets, octets.hex().encode(), octets.hex().upper().encode()}
        for shift in range(3):
            # Whatever stands before it: only whole groups of six bits that hold nothing else.
            group = base64.b64encode(bytes(shift) + octets)
            inside = group[-(-shift * 8 // 6) : (shift + len(octets)) * 8 // 6]
            coded |= {inside, inside.translate(bytes.maketrans(b"+/", b"-_"))}
        return any(each in seen for seen in self._seen() for each in coded)

    def _seen(self) -> Iterator[bytes]:
        """Each text as it went out, and as a server would read it."""
        for raw in self.raw:
            yield raw
            unquoted = unquote_to_bytes(raw)
            yield from (unquoted, unquote_to_bytes(raw.replace(b"+", b" ")), unquote_to_bytes(unquoted))
            for text in (raw, unquoted):
                yield _ESCAPED.sub(_unescaped, text)

    def _note(self, request: Request) -> None:
        self._add(f"{request.method} {request.url}", request.headers)
        self.raw.append(request.post_data_buffer or b"")

    def _on_wire(self, event: dict[str, Any]) -> None:
        request = event["request"]
        self._add(request["url"] + request.get("urlFragment", ""), request["headers"])
        self.raw += [base64.b64decode(entry.get("bytes", "")) for entry in request.get("postDataEntries", ())]

    def _frame(self, payload: str | bytes) -> None:
        self.raw.append(payload if isinstance(payload, bytes) else payload.encode())

    def _add(self, line: str, headers: Mapping[str, str]) -> None:
        lines = (line, *(f"{name}: {value}" for name, value in headers.items()))
        self.raw.append("\n".join(lines).encode(errors="surrogatepass"))


def _unescaped(found: re.Match[bytes]) -> bytes:
    """One escape of a JSON or JavaScript text as the octets that it stands for."""
    number = found[1] or found[2]
    return chr(int(number, 16)).encode(errors="replace") if number else found[3]


@dataclass
class Trouble:
    """What a page should never say: errors in its console, faults of its scripts, things that its policy refused."""

    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Listen to this page."""
        page.on("pageerror", lambda error: self.found.append(f"{page.url}: {error}"))
        page.on("console", lambda message: self._note(page, message))

    def _note(self, page: Page, message: ConsoleMessage) -> None:
        # Chromium reports every refusal by a server, and those are what some tests are about.
        if message.type == "error" and "the server responded with a status of" not in message.text:
            self.found.append(f"{page.url}: {message.text}")


def shoot(page: Page, folder: Path, name: str, *, judged: bool = True) -> None:
    """The page at both sizes, whole; each of them ``judged`` by axe, which needs JavaScript."""
    folder.mkdir(parents=True, exist_ok=True)
    before = page.viewport_size
    for size, label in ((PHONE, "phone"), (DESK, "desk")):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], (
            f"{page.url} is wider than {label}"
        )
        # As high as the page is: what sticks to the window's edge would lie over the midst of the picture.
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
        for picture in page.locator("img").all():
            picture.scroll_into_view_if_needed()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=folder / f"{name}-{label}.png", full_page=True)
        assert not judged or violations(page) == [], f"{name} on a {label}"
    if before is not None:
        page.set_viewport_size(before)


@contextlib.contextmanager
def agency_site() -> Iterator[str]:
    """An agency's own web, where browsers come back to; gives its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            # Without a length an answer ends with its connection, and a reset of that would be an error of the page.
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"sede")

        def log_message(self, *_arguments: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/vuelta"
        finally:
            server.shutdown()
            thread.join()


class Loads:
    """The return address, loaded by several threads with this browser's cookies before the browser itself does."""

    def __init__(self, context: BrowserContext, times: int) -> None:
        self.url = ""
        self._context, self._times = context, times
        self._pool = ThreadPoolExecutor(times)
        self._under_way: list[Future[tuple[int, str]]] = []

    def begin(self, route: Route) -> None:
        """Called with the browser's own request, which goes on at the same time."""
        if not self.url:
            self.url = route.request.url
            cookies = {each["name"]: each["value"] for each in self._context.cookies(self.url)}
            self._under_way = [self._pool.submit(_load, self.url, cookies) for _ in range(self._times)]
        route.continue_()

    def answers(self) -> list[tuple[int, str]]:
        """Status and where to go on, of each."""
        with self._pool:
            return [each.result() for each in self._under_way]


def loads_at_once(visitor: "Visitor", times: int) -> Loads:
    """From now on the browser is not alone when it loads the return address."""
    loads = Loads(visitor.context, times)
    visitor.page.route("**/return?*", loads.begin)
    return loads


def _load(url: str, cookies: dict[str, str]) -> tuple[int, str]:
    answer = httpx.get(url, cookies=cookies, timeout=60, trust_env=False)
    return answer.status_code, answer.headers.get("location", "")


class Visitor:
    """One browser with cookies of its own, and what can be done with it on our pages."""

    def __init__(
        self,
        browser: Browser,
        locale: str,
        pictures: Path,
        looked: MutableMapping[str, set[str]],
        *,
        script: bool = True,
    ) -> None:
        """Open it.

        Args:
            browser: Chromium.
            locale: Of the person.
            pictures: Where screenshots go.
            looked: Takes the languages in which each page was looked at, by the page's name.
            script: Whether JavaScript is on.
        """
        self.context = browser.new_context(
            locale=locale, viewport=DESK, java_script_enabled=script, accept_downloads=True
        )
        self.language = locale[:2]
        self.sent, self.trouble = Sent(), Trouble()
        self.typed: set[str] = set()
        """Passwords and codes, none of which may ever go out in clear."""
        self.page: Page = self.context.new_page()
        self.sent.watch(self.context, self.page)
        self.trouble.watch(self.page)
        self._browser, self._script = browser, script
        self._pictures, self._looked = pictures, looked

    def look(self, name: str) -> None:
        """Take pictures and let axe judge the page, at both sizes."""
        assert self.page.locator("html").get_attribute("lang") == self.language
        if self._script:
            shoot(self.page, self._pictures, f"{name}-{self.language}")
        else:
            shoot(self.page, self._pictures, f"{name}-{self.language}", judged=False)
            self._judge_a_copy()
        self._looked.setdefault(name, set()).add(self.language)

    def _judge_a_copy(self) -> None:
        """axe is a script itself: it judges what a page without scripts shows where scripts may run."""
        text = SCRIPT.sub("", self.page.content()).replace("noscript", "div")
        with contextlib.closing(self._browser.new_context(viewport=DESK)) as context:
            copy = context.new_page()
            copy.route(self.page.url, lambda route: route.fulfill(body=text, content_type="text/html; charset=utf-8"))
            copy.goto(self.page.url)
            for size in (PHONE, DESK):
                copy.set_viewport_size(size)
                assert violations(copy) == [], self.page.url

    def look_in_both(self, name: str) -> None:
        """Look at the page, then by its own links in the other language and back; what it shows has to stay."""
        shape = self.page.evaluate(SHAPE)
        self.look(name)
        own = self.language
        for language in [*sorted({"es", "en"} - {own}), own]:
            self.page.locator(f"header a[hreflang={language}]").click()
            expect(self.page.locator("html")).to_have_attribute("lang", language)
            self.page.wait_for_function(f"before => ({SHAPE})() === before", arg=shape)
            self.language = language
            if language != own:
                self.look(name)

    def bring(self, edge: str, *documents: Path) -> None:
        """Upload files at the edge."""
        self.page.goto(edge)
        self.page.set_input_files("#documents", documents)
        self.page.locator("button[type=submit]").click()

    def to_the_gate(self) -> None:
        """From the review page on."""
        self.page.locator(".sign a.button").click()
        self.page.wait_for_url("**/authorise/**")

    def type_password(self, nif: str, password: str) -> None:
        """The gate's first step."""
        self.typed.add(password)
        self.page.fill("#nif", nif)
        self.page.fill("#password", password)
        self.page.locator("[data-step='password'] button[type=submit]").click()

    def reference(self) -> str:
        """What the page says that the SMS must carry."""
        shown = self.page.locator("[data-fill='reference']")
        expect(shown).to_be_visible()
        expect(shown).to_have_text(re.compile(r"\S+"))
        return shown.inner_text()

    def type_code(self, code: str) -> str:
        """The one-time code; gives it back."""
        self.typed.add(code)
        self.page.fill("#otp", code)
        self.page.locator("[data-step='code'] button[type=submit]").click()
        return code


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe finds against WCAG 2.2 AA and its own best practice."""
    found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response["violations"]
    return [(each["id"], [str(node["target"]) for node in each["nodes"]]) for each in found]
