"""A real browser before the running service, and a record of everything that it sends."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import Browser, BrowserContext, Page, Request, ViewportSize, sync_playwright

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
    """Everything that pages sent: addresses, headers, bodies."""

    requests: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        """Record what this context sends from now on."""
        context.on("request", self._note)

    def holds(self, secret: str) -> bool:
        """Whether ``secret`` went out in clear, in whatever simple coding."""
        wanted = {secret, secret.encode().hex()}
        return any(each in text for text in self.requests for each in wanted)

    def _note(self, request: Request) -> None:
        body = request.post_data_buffer or b""
        headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        text = f"{request.method} {unquote(request.url)}\n{headers}\n{body.decode('latin-1')}"
        self.requests += [text, unquote(body.decode("latin-1"))]


@dataclass
class Trouble:
    """What a page should never say: errors in its console, faults of its scripts, things that its policy refused."""

    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Listen to this page."""
        page.on("pageerror", lambda error: self.found.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda message: self.found.append(f"{page.url}: {message.text}") if message.type == "error" else None,
        )


def shoot(page: Page, folder: Path, name: str) -> None:
    """The page at both sizes, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    before = page.viewport_size
    for size, label in ((PHONE, "phone"), (DESK, "desk")):
        page.set_viewport_size(size)
        for picture in page.locator("img").all():
            picture.scroll_into_view_if_needed()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=folder / f"{name}-{label}.png", full_page=True)
    if before is not None:
        page.set_viewport_size(before)
