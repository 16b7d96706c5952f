"""The signed file is put where it was asked for whole, or nothing is."""

import os
from pathlib import Path

import pytest

from rubrica.order import Order, Refused, put_in_place, shown


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "signed.pdf"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"%PDF signed")
    return path


def test_it_is_moved_with_the_rights_that_the_caller_gives(signed: Path, tmp_path: Path) -> None:
    ours = os.umask(0o077)
    try:
        put_in_place(signed, tmp_path / "a" / "b" / "out.pdf", umask=0o027)
        assert os.umask(0o077) == 0o077, "the process's own umask has changed"
    finally:
        os.umask(ours)

    target = tmp_path / "a" / "b" / "out.pdf"
    assert target.read_bytes() == b"%PDF signed"
    assert (target.stat().st_mode & 0o777, target.parent.stat().st_mode & 0o777) == (0o640, 0o750)
    assert not signed.exists()


def test_what_fails_leaves_nothing_behind(signed: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "signed.pdf"
    target.mkdir(parents=True)

    with pytest.raises(Refused, match=r"signed\.pdf cannot be written: Is a directory"):
        put_in_place(signed, target, umask=0o022)

    assert list(target.parent.iterdir()) == [target]
    assert signed.read_bytes() == b"%PDF signed"


def order(packaging: str) -> Order:
    return Order.parse(sign="", out="", level="", format_name="xades", packaging=packaging, algorithm="ES256")


@pytest.mark.parametrize(
    ("name", "title", "whole"),
    [
        (b"se\xf1or.xml", "se\ufffdor", "se\ufffdor.xml"),
        (b"a\nb.xml", "a b", "a b.xml"),
        ("\u200b.xml".encode(), "documento", ".xml"),
        (b"n" * 200 + b".xml", "n" * 119 + "…", "n" * 119 + "…"),
    ],
)
def test_a_title_is_text_that_can_be_shown(name: bytes, title: str, whole: str) -> None:
    document = Path(os.fsdecode(name))
    assert order("enveloped").title(document) == title
    assert order("detached").title(document) == whole
    assert shown(document.name).encode()


def test_the_name_of_the_signed_file_is_never_too_long() -> None:
    for name in (b"n" * 255, "ñ".encode() * 127, b"se\xf1or.xml"):
        found = os.fsencode(order("enveloped").output_name(Path(os.fsdecode(name))))
        assert len(found) <= 255
        assert found.endswith(b"-signed.xml")
