import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authn.messages.texts import BASIC, EXTENDED, PART_SEPTETS, Language, SMSTexts, clean, cut, septets, to_gsm

HOST = "firma.sede.example.gob.es"


def texts(language: Language = Language.SPANISH, **changes: str) -> SMSTexts:
    return SMSTexts(**{"service": "Rúbrica", "gate_host": HOST, "language": language, **changes})  # type: ignore[arg-type]


def a_signature(**changes: Any) -> dict[str, Any]:
    return {
        "agency": "Ayuntamiento de Ávila",
        "count": 1,
        "title": "Solicitud de empadronamiento",
        "reference": "KXTRAB",
        "otp": "042137",
        "minutes": 5,
        **changes,
    }


def test_the_alphabet_is_that_of_the_standard() -> None:
    # 128 places, of which one is the escape; the extension has ten, one of which (form feed) no text of ours needs.
    assert (len(BASIC), len(EXTENDED)) == (127, 9)


@pytest.mark.parametrize(("text", "expected"), [("", 0), ("abc", 3), ("€", 2), ("a[b]", 6), ("ñ", 1), ("\n@#", 3)])
def test_septets(text: str, expected: int) -> None:
    assert septets(text) == expected


@pytest.mark.parametrize("text", ["código", "á", "日", "😀", "\t", "`"])
def test_what_has_no_septets(text: str) -> None:
    with pytest.raises(ValueError, match="GSM"):
        septets(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Código", "Codigo"),
        ("contraseña", "contraseña"),
        ("n\u0303", "ñ"),
        ("Ávila, señor Güell é", "Avila, señor Güell é"),
        ("l·l", "l?l"),
        ("«x» – ‘y’", "\"x\" - 'y'"),
        ("日本", "??"),
        ("…", "..."),
        ("Łódź", "Lodz"),
    ],
)
def test_transliteration(text: str, expected: str) -> None:
    assert to_gsm(text) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("a\r\nb", "a b"),
        ("x\n@evil.example #123456", "x evil.example 123456"),
        ("\u202egnp.exe", "gnp.exe"),
        ('a "quoted" one', "a 'quoted' one"),
        ("\u00a0  a \u2003 b\t", "a b"),
        ("\uff20evil \uff03123", "evil 123"),
    ],
)
def test_a_strangers_title_is_cleaned(title: str, expected: str) -> None:
    assert clean(title) == expected


@given(st.text(), st.integers(min_value=2, max_value=40))
def test_cutting_keeps_the_limit(text: str, limit: int) -> None:
    shown = cut(to_gsm(text), limit)
    assert septets(shown) <= limit
    if septets(to_gsm(text)) <= limit:
        assert shown == to_gsm(text)


def test_a_signature_in_spanish() -> None:
    assert texts().sign(**a_signature()) == (
        'Ayuntamiento de Avila: firmar "Solicitud de empadronamiento". Ref KXTRAB. '
        f"Codigo 042137 (5 min), no lo diga.\n@{HOST} #042137"
    )


def test_a_batch_in_english() -> None:
    shown = texts(Language.ENGLISH, gate_host="localhost").sign(**a_signature(count=20, title="Grant 1"))
    assert shown == (
        'Ayuntamiento de Avila: sign 20 documents, "Grant 1" and more. Ref KXTRAB. '
        "Code 042137 (5 min), tell nobody.\n@localhost #042137"
    )


@given(
    agency=st.text(min_size=1, max_size=200),
    title=st.text(max_size=120),
    count=st.integers(min_value=1, max_value=10_000),
    digits=st.sampled_from(["000000", "98765432"]),
    language=st.sampled_from(Language),
)
def test_every_signature_text_fits_one_part(
    agency: str, title: str, count: int, digits: str, language: Language
) -> None:
    shown = texts(language).sign(**a_signature(agency=agency, title=title, count=count, otp=digits))
    assert septets(shown) <= PART_SEPTETS
    body, origin = shown.split("\n")
    assert origin == f"@{HOST} #{digits}"
    assert re.search(rf"Ref KXTRAB\. (Codigo|Code) {digits} \(5 min\), ", body)
    assert "@" not in body
    assert count == 1 or f" {count} " in body


def test_a_long_agency_and_a_long_title_are_both_still_recognised() -> None:
    shown = texts().sign(**a_signature(agency="Ministerio " * 20, title="Subvencion " * 20, count=10_000, otp="0" * 8))
    assert shown.startswith("Ministerio ")
    assert '"Subvencion ' in shown
    assert septets(shown) > PART_SEPTETS - 6, "room is wasted"


def test_a_short_agency_leaves_its_room_to_the_title() -> None:
    title = "Declaracion responsable de obra"
    assert f'"{title}"' in texts(gate_host="localhost").sign(**a_signature(agency="AEAT", title=title, otp="0" * 8))


@pytest.mark.parametrize("language", Language)
def test_codes_for_passwords_and_notices_fit_one_part(language: Language) -> None:
    written = texts(language)
    codes = [
        written.activation(reference="KXTRAB", otp="042137", minutes=5),
        written.password_change(reference="KXTRAB", otp="042137", minutes=5),
        written.pin(reference="KXTRAB", otp="042137", minutes=10),
    ]
    notices = [
        written.phone_changed_old(),
        written.phone_changed_new(),
        written.password_changed(),
        written.blocked(minutes=15),
    ]
    assert len({*codes, *notices}) == 7
    for text in codes:
        assert text.endswith(f"\n@{HOST} #042137")
        assert "KXTRAB" in text
    for text in (*codes, *notices):
        assert septets(text) <= PART_SEPTETS
        assert text.startswith("Rubrica: ")


@pytest.mark.parametrize("changes", [{"gate_host": "a" * 60 + ".example"}, {"service": "Servicio " * 10}])
def test_names_that_leave_no_room_are_refused_at_once(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="too long"):
        texts(**changes)
