"""Parts of the service that are away while a citizen signs: nothing is lost, and nobody has to begin again."""

from contextlib import ExitStack, suppress

from playwright.sync_api import expect

from tests.e2e.test_browser import DOWNLOAD, PDF, downloaded
from tests.testkit.asked import TO_REVIEW, asked
from tests.testkit.outages import pki_stopped, standing_still, token_away


def test_a_core_that_hangs_loses_nothing(service, visit, citizen):
    visitor, english = visit(), visit("en-GB")
    with asked(service, citizen) as another, asked(service, citizen) as case:
        another.to_the_gate(english)
        case.to_the_gate(visitor)
        with standing_still(service, "core"):
            for one, told in ((visitor, "no responde"), (english, "does not answer")):
                one.type_password(citizen.person.nif, citizen.person.password)
                shown = one.page.locator("[data-step='password'] [data-errors] li")
                expect(shown).to_contain_text(told, timeout=60_000)
                one.look("authorise-6-core-away")

        # The password field was left as it was.
        visitor.page.locator("[data-step='password'] button[type=submit]").click()
        case.ends_with_code(visitor, citizen.phone.code(visitor.reference()))


def test_a_token_that_is_gone_is_waited_for(service, visit, citizen):
    visitor, english = visit(), visit("en-GB")
    page = visitor.page
    with asked(service, citizen) as another, asked(service, citizen) as case:
        another.to_the_gate(english)
        case.to_the_gate(visitor)
        with token_away(service):
            for one, told, advice in (
                (visitor, "El dispositivo de firma no responde", "Pruebe otra vez"),
                (english, "The signing device does not answer", "try again"),
            ):
                one.type_password(citizen.person.nif, citizen.person.password)
                shown = one.page.locator("[data-step='password'] [data-errors] li")
                expect(shown).to_contain_text(told, timeout=60_000)
                expect(shown).to_contain_text(advice)
                one.look("authorise-8-token-away")
            assert (case.seen, case.signed) == (TO_REVIEW, 0)
        expect(page.locator("#password")).to_have_value(citizen.person.password)
        press_until_it_goes(page, "[data-step='password'] button[type=submit]", "[data-step='code']")

        # Away again, between the code and the signature.
        code = citizen.phone.code(visitor.reference())
        with ExitStack() as outage:
            page.route("**/return?*", lambda route: (outage.enter_context(token_away(service)), route.continue_()))
            visitor.type_code(code)
            page.wait_for_url(case.review_url, timeout=60_000)
            expect(page.locator("main")).to_contain_text("Ya lo ha aprobado y no tiene que hacerlo otra vez")
            visitor.look_in_both("sign-3-under-way")
            assert case.seen == ("APPROVED", "PREPARED", "wait")
            assert case.signed == 0
        for _ in range(40):
            page.wait_for_timeout(1000)
            page.locator(".actions .button").click()
            if page.locator(".notice.good").count():
                break
        assert (case.seen, case.signed) == (("DONE", "SIGNED", "collect"), 1)


def press_until_it_goes(page, button, shown):
    for _ in range(5):
        page.locator(button).click()
        with suppress(AssertionError):
            expect(page.locator(shown)).to_be_visible(timeout=15_000)
            return
    raise AssertionError("the service did not come back")


def test_a_timestamp_authority_that_is_stopped_is_waited_for_without_the_citizen(
    service, visit, citizen, court, tmp_path
):
    visitor = visit()
    page = visitor.page
    service.sign(citizen, [PDF], service.folder)  # so that a certificate is there
    with asked(service, citizen) as case:
        case.to_the_gate(visitor)
        visitor.type_password(citizen.person.nif, citizen.person.password)
        code = citizen.phone.code(visitor.reference())

        with pki_stopped(service):
            visitor.type_code(code)
            page.wait_for_url(case.review_url, timeout=90_000)
            for _ in range(60):
                if page.locator(".notice.good").count():
                    break
                page.wait_for_timeout(1000)
                page.reload()
            expect(page.locator(".notice.warning")).to_contain_text("seguimos intentándolo")
            visitor.look_in_both("sign-3-late")
            # It is signed, and can be collected; what is missing comes without anybody's doing.
            assert case.seen == ("DONE", "PARTIAL", "collect")
            early = downloaded(visitor, DOWNLOAD, tmp_path / "early.pdf")
            assert early.read_bytes().startswith(PDF.read_bytes())

        for _ in range(60):
            if not page.locator(".notice.warning").count():
                break
            page.wait_for_timeout(1000)
            page.reload()
        assert (case.seen, case.signed) == (("DONE", "SIGNED", "collect"), 1)
        court.passes("late", downloaded(visitor, DOWNLOAD, tmp_path / "late.pdf"), "PAdES-BASELINE-LTA")
        court.passes("early", early, "PAdES-BASELINE-B")
