"""What is brought is kept: nobody chooses files twice because of what came with them, or how they are called."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.test_browser import LANGUAGES, PDF
from tests.e2e.test_browser_refusals import REFUSED

APART = {"es-ES": "Los PDF y los XML se aprueban por separado", "en-GB": "PDF and XML files are approved apart"}
MOST = {"es-ES": "como mucho 20", "en-GB": "at most 20"}
SWITCHED = {"es-ES": ("en", "Sign a document"), "en-GB": ("es", "Firmar un documento")}


def copies(folder, number):
    found = [folder / f"documento {each:02}.pdf" for each in range(number)]
    for path in found:
        path.write_bytes(PDF.read_bytes())
    return found


def opened(visitor):
    """The titles of each approval, each opened in its own tab as its button does."""
    titles = []
    for button in visitor.page.locator("section.card a.button").all():
        with visitor.context.expect_page() as opening:
            button.click()
        expect(opening.value.locator(".sign a.button")).to_be_visible()
        titles.append(opening.value.locator("section[aria-labelledby^='document-'] h2").all_inner_texts())
        opening.value.close()
    return titles


@pytest.mark.parametrize("locale", LANGUAGES)
def test_files_of_both_kinds_are_all_kept_in_an_approval_each(service, visit, locale, tmp_path):
    visitor = visit(locale)
    page = visitor.page
    plain, wrong = tmp_path / "plain.xml", tmp_path / "note.txt"
    plain.write_text("<a/>")
    wrong.write_text("hello")

    visitor.bring(service.running.edge, *copies(tmp_path, 2), plain)

    expect(page.locator("[role=alert]")).to_have_count(0)
    expect(page.locator("main")).to_contain_text(APART[locale])
    expect(page.locator("main")).not_to_contain_text(MOST[locale])
    visitor.look("sign-1-mixed")
    assert opened(visitor) == [["documento 00", "documento 01"], ["plain"]]
    # Loaded again, or in the other language, it is still there.
    page.reload()
    page.locator(f"nav a[lang={SWITCHED[locale][0]}]").click()
    expect(page.locator("html")).to_have_attribute("lang", SWITCHED[locale][0])
    assert opened(visitor) == [["documento 00", "documento 01"], ["plain"]]
    page.locator(f"nav a[lang={locale[:2]}]").click()

    # With one among them that nobody can sign: it is named, and only it is left out.
    visitor.bring(service.running.edge, plain, wrong, PDF, REFUSED / "needs-password.pdf")
    told = page.locator("[role=alert] li")
    expect(told).to_have_count(2)
    expect(told.filter(has_text="note.txt")).to_have_count(1)
    expect(told.filter(has_text="needs-password.pdf")).to_have_count(1)
    visitor.look("sign-1-mixed-partly")
    assert opened(visitor) == [[PDF.stem], ["plain"]]
    page.locator(f"nav a[lang={SWITCHED[locale][0]}]").click()
    expect(page.locator("html")).to_have_attribute("lang", SWITCHED[locale][0])
    assert opened(visitor) == [[PDF.stem], ["plain"]]


def test_more_files_than_fit_in_one_approval_make_two(service, visit, tmp_path):
    visitor = visit()
    documents = copies(tmp_path, 21)

    visitor.bring(service.running.edge, *documents)

    expect(visitor.page.locator("main")).to_contain_text(MOST["es-ES"])
    expect(visitor.page.locator("main")).not_to_contain_text(APART["es-ES"])
    assert [len(each) for each in opened(visitor)] == [20, 1]


def test_too_many_files_at_once_are_told_as_that_alone(service):
    for count, said in ((101, "at most 100"), (0, "Choose a file first")):
        documents = [("documents", (f"{number}.pdf", PDF.read_bytes()[:10])) for number in range(count)]
        answer = httpx.post(
            f"{service.running.edge}/sign",
            files=documents or [("other", ("a.pdf", b"x"))],
            headers={"Accept": "text/html", "Accept-Language": "en"},
            trust_env=False,
        )
        assert answer.status_code in (400, 422)
        assert said in answer.text
        assert "PDF and XML" not in answer.text


@pytest.mark.parametrize("locale", LANGUAGES)
def test_the_language_is_not_lost_after_a_refused_file(service, visit, locale):
    visitor = visit(locale)
    page = visitor.page
    other, heading = SWITCHED[locale]
    visitor.bring(service.running.edge, REFUSED / "empty.pdf")
    expect(page.locator("[role=alert]")).to_be_visible()

    page.locator(f"nav a[lang={other}]").click()

    expect(page.locator("h1")).to_have_text(heading)
    page.goto(service.running.edge)  # and it stays
    expect(page.locator("h1")).to_have_text(heading)
    # What is no language of ours is not carried on.
    answer = httpx.get(
        f"{service.running.edge}/sign?lang=//evil.example", headers={"Accept": "text/html"}, trust_env=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


NAMES = {
    'odd "quoted" 100%25 x.pdf': 'odd "quoted" 100%25 x',
    "two\nlines.pdf": "two lines",
    "..pdf": "Document",
    ".pdf": "Document",
    "...": "Document",
    "\u200b\u202e.pdf": "Document",
    ".hidden.pdf": "hidden",
    "sin extensión": "sin extensión",
    "informe v1.2.pdf": "informe v1.2",
}


def test_documents_are_called_as_their_files(service, visit, tmp_path):
    visitor = visit("en-GB")
    page = visitor.page
    for name in NAMES:
        (tmp_path / "each").mkdir(exist_ok=True)
        (tmp_path / "each" / name).write_bytes(PDF.read_bytes())
    visitor.bring(service.running.edge, *(tmp_path / "each" / name for name in NAMES))

    expect(page.locator("section[aria-labelledby^='document-'] h2")).to_have_text(list(NAMES.values()))

    quoted = tmp_path / 'a "b".pdf'
    quoted.write_bytes((REFUSED / "needs-password.pdf").read_bytes())
    visitor.bring(service.running.edge, quoted)
    expect(page.locator("[role=alert] li strong")).to_have_text('a "b".pdf')
