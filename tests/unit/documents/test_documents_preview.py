"""What people see of a document before they sign it, through the limited child."""

import io
from pathlib import Path

import pikepdf
import pypdfium2
import pytest
import pytest_asyncio
from PIL import Image

from documents.child import DocumentWorker
from documents.model import PAdESOptions, Unseen
from documents.preview import PIXEL_LIMIT, TEXT_LIMIT_CHARACTERS, WIDTH_PIXELS
from domain.clock import SystemClock
from domain.errors import NotFound, UnsupportedDocument

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PLAIN = SAMPLES / "good" / "libreoffice.pdf"
FORM = SAMPLES / "good" / "reportlab-form.pdf"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker():
    async with DocumentWorker(SystemClock()) as running:
        yield running


async def test_every_sample_has_its_pages_and_their_pictures(worker):
    for path in sorted((SAMPLES / "good").glob("*.pdf")):
        outline = await worker.outline(path)
        assert outline.page_count == len(outline.pages) > 0, path.name
        for number in range(1, outline.page_count + 1):
            picture = decoded(await worker.preview(path, number))
            assert picture.width > 1000, path.name
            low, high = picture.convert("L").getextrema()
            assert low < high, f"{path.name}: the page is blank"


def decoded(image):
    picture = Image.open(io.BytesIO(image.png))
    picture.load()  # checks every checksum
    assert picture.format == "PNG"
    return picture


async def test_the_picture_is_pixel_for_pixel_what_pdfium_draws(worker):
    picture = decoded(await worker.preview(PLAIN, 1))

    page = pypdfium2.PdfDocument(PLAIN)[0]
    scale = min(WIDTH_PIXELS / page.get_width(), (PIXEL_LIMIT / (page.get_width() * page.get_height())) ** 0.5)
    drawn = page.render(scale=scale, rev_byteorder=True).to_pil()
    assert (drawn.size, drawn.tobytes()) == (picture.size, picture.tobytes())
    other = decoded(await worker.preview(SAMPLES / "good" / "latex.pdf", 1))
    assert other.tobytes() != picture.tobytes()


async def test_form_fields_are_shown_filled_in(worker, tmp_path):
    empty = decoded(await worker.preview(FORM, 1))
    filled = tmp_path / "filled.pdf"
    with pikepdf.open(FORM) as pdf:
        fields = list(pdf.Root.AcroForm.Fields)
        text = next(field for field in fields if field.get("/FT") == pikepdf.Name.Tx)
        text.V = pikepdf.String("Pago de 9.999 euros")
        del text.AP
        pdf.Root.AcroForm.NeedAppearances = True
        pdf.save(filled)

    assert decoded(await worker.preview(filled, 1)).tobytes() != empty.tobytes()


async def test_the_text_of_a_page_can_be_read_out(worker):
    outline = await worker.outline(PLAIN)

    assert "Doña Begoña García" in outline.pages[0].text
    assert all(sign.isprintable() or sign == "\n" for sign in outline.pages[0].text)


async def test_what_no_picture_shows_is_named(worker, tmp_path):
    loaded = tmp_path / "loaded.pdf"
    with pikepdf.open(PLAIN) as pdf:
        script = pikepdf.Dictionary(S=pikepdf.Name.JavaScript, JS=pikepdf.String("app.alert(1)"))
        pdf.attachments["hidden.txt"] = b"hidden"
        names = pikepdf.Array([pikepdf.String("a"), pdf.make_indirect(script)])
        pdf.Root.Names.JavaScript = pdf.make_indirect(pikepdf.Dictionary(Names=names))
        pdf.save(loaded)

    assert (await worker.outline(PLAIN)).unseen == ()
    assert (await worker.outline(loaded)).unseen == (Unseen.SCRIPT, Unseen.ATTACHMENTS)
    assert (await worker.outline(SAMPLES / "good" / "signed-before.pdf")).unseen == (Unseen.SIGNATURES,)


def js(pdf):
    return pdf.make_indirect(pikepdf.Dictionary(S=pikepdf.Name.JavaScript, JS=pikepdf.String("app.alert(1)")))


def annotate(pdf, **entries: object):
    entries = {"Type": pikepdf.Name.Annot, "Rect": [100, 300, 400, 350], **entries}
    pdf.pages[0].obj.Annots = pikepdf.Array([pdf.make_indirect(pikepdf.Dictionary(**entries))])


def script_when_opened(pdf):
    pdf.Root.OpenAction = js(pdf)


def script_of_a_name(pdf):
    pdf.Root.Names = pikepdf.Dictionary(JavaScript=pikepdf.Dictionary(Names=["a", js(pdf)]))


def script_of_the_document(pdf):
    pdf.Root.AA = pikepdf.Dictionary(WP=js(pdf))


def script_of_a_page(pdf):
    pdf.pages[0].obj.AA = pikepdf.Dictionary(O=js(pdf))


def script_of_a_link(pdf):
    annotate(pdf, Subtype=pikepdf.Name.Link, A=js(pdf))


def script_behind_another_action(pdf):
    first = pdf.make_indirect(pikepdf.Dictionary(S=pikepdf.Name.URI, URI="https://a.example"))
    first.Next = pikepdf.Array([first, js(pdf)])
    annotate(pdf, Subtype=pikepdf.Name.Link, A=first)


def script_of_a_field(pdf):
    kid = pdf.make_indirect(pikepdf.Dictionary(FT=pikepdf.Name.Tx, AA=pikepdf.Dictionary(C=js(pdf))))
    field = pdf.make_indirect(pikepdf.Dictionary(T="a", Kids=[kid]))
    kid.Kids = pikepdf.Array([field])
    pdf.Root.AcroForm = pikepdf.Dictionary(Fields=[field])


def script_of_a_bookmark(pdf):
    entry = pdf.make_indirect(pikepdf.Dictionary(Title="a", A=js(pdf)))
    entry.Next = entry
    pdf.Root.Outlines = pdf.make_indirect(pikepdf.Dictionary(First=entry, Last=entry, Count=1))


def file_on_a_page(pdf):
    file = pikepdf.Dictionary(F=pdf.make_stream(b"MZ"))
    specification = pikepdf.Dictionary(Type=pikepdf.Name.Filespec, F="x.exe", EF=file)
    annotate(pdf, Subtype=pikepdf.Name.FileAttachment, FS=specification)


def layer(pdf):
    group = pdf.make_indirect(pikepdf.Dictionary(Type=pikepdf.Name.OCG, Name="secret"))
    pdf.Root.OCProperties = pikepdf.Dictionary(OCGs=[group], D=pikepdf.Dictionary(OFF=[group], Order=[group]))
    page = pdf.pages[0]
    page.Resources.Properties = pikepdf.Dictionary(MC0=group)
    page.contents_add(b"/OC /MC0 BDC 0 g 0 0 300 300 re f EMC")


def on_paper_only(pdf):
    annotate(pdf, Subtype=pikepdf.Name.Stamp, F=4 | 32)


def hidden_note(pdf):
    annotate(pdf, Subtype=pikepdf.Name.FreeText, F=2, Contents="a")


def second_form(pdf):
    pdf.Root.AcroForm = pikepdf.Dictionary(Fields=[], XFA=pdf.make_stream(b"<x/>"))


def nothing_hidden(pdf):
    pdf.Root.OpenAction = pikepdf.Dictionary(S=pikepdf.Name.GoTo, D="a")
    annotate(pdf, Subtype=pikepdf.Name.FreeText, F=4, Contents="a")


def an_invisible_field(pdf):
    annotate(pdf, Subtype=pikepdf.Name.Widget, FT=pikepdf.Name.Sig, T="a", Rect=[0, 0, 0, 0], F=2)


def nonsense(pdf):
    annotate(pdf, Subtype=pikepdf.Name.Stamp, F="x", Rect=["a", 1], A=[1], AA=3)
    pdf.Root.Outlines = pikepdf.Array([1])


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (script_when_opened, {Unseen.SCRIPT}),
        (script_of_a_name, {Unseen.SCRIPT}),
        (script_of_the_document, {Unseen.SCRIPT}),
        (script_of_a_page, {Unseen.SCRIPT}),
        (script_of_a_link, {Unseen.SCRIPT}),
        (script_behind_another_action, {Unseen.SCRIPT}),
        (script_of_a_field, {Unseen.SCRIPT}),
        (script_of_a_bookmark, {Unseen.SCRIPT}),
        (file_on_a_page, {Unseen.ATTACHMENTS}),
        (layer, {Unseen.LAYERS}),
        (on_paper_only, {Unseen.HIDDEN}),
        (hidden_note, {Unseen.HIDDEN}),
        (second_form, {Unseen.FORM}),
        (nothing_hidden, set()),
        (an_invisible_field, set()),
        (nonsense, set()),
    ],
)
async def test_whatever_a_picture_cannot_show_is_told(worker, tmp_path, load, expected):
    loaded = tmp_path / "loaded.pdf"
    with pikepdf.open(PLAIN) as pdf:
        load(pdf)
        pdf.save(loaded)

    assert set((await worker.outline(loaded)).unseen) == expected


async def test_ordinary_documents_get_no_warning(worker):
    told = {path.stem: (await worker.outline(path)).unseen for path in sorted((SAMPLES / "good").glob("*.pdf"))}

    assert {name: unseen for name, unseen in told.items() if unseen} == {
        "signed-before": (Unseen.SIGNATURES,),
        "signed-certified-forms": (Unseen.SIGNATURES,),
    }


async def test_the_signature_that_is_being_prepared_is_no_earlier_one(worker, tmp_path):
    prepared = tmp_path / "prepared.pdf"
    await worker.prepare(PLAIN, prepared, PAdESOptions(signing_time=SystemClock().now()))

    assert (await worker.outline(prepared)).unseen == ()
    assert decoded(await worker.preview(prepared, 1)).tobytes() == decoded(await worker.preview(PLAIN, 1)).tobytes()


@pytest.mark.parametrize("size", [(14_400, 3), (3, 14_400), (3, 3), (14_400, 14_400)])
async def test_pages_of_odd_sizes_stay_within_bounds(worker, tmp_path, size):
    odd = tmp_path / "odd.pdf"
    with pikepdf.new() as pdf:
        pdf.add_blank_page(page_size=size)
        pdf.save(odd)

    picture = decoded(await worker.preview(odd, 1))

    assert 0 < picture.width * picture.height <= PIXEL_LIMIT * 1.01


async def test_there_is_no_page_beyond_the_last(worker):
    for number in (0, 2):
        with pytest.raises(NotFound):
            await worker.preview(PLAIN, number)


@pytest.mark.parametrize("name", ["truncated.pdf", "not-a-pdf.pdf", "empty.pdf", "needs-password.pdf"])
async def test_what_cannot_be_opened_is_a_refusal(worker, name):
    with pytest.raises(UnsupportedDocument):
        await worker.preview(SAMPLES / "refused" / name, 1)


async def test_xml_is_indented_text(worker, tmp_path):
    document = tmp_path / "a.xml"
    document.write_text('<a x="1"><b>ñ</b><c/></a>')

    outline = await worker.outline(document)

    assert outline.text == '<a x="1">\n  <b>ñ</b>\n  <c/>\n</a>'
    assert (outline.page_count, outline.unseen) == (0, ())
    document.write_text("<a>1 \u202e2\u2066 3\u200b\x85\ufeff</a>")
    turned = await worker.outline(document)
    assert turned.text == "<a>1 [U+202E]2[U+2066] 3[U+200B][U+0085][U+FEFF]</a>"
    assert turned.unseen == (Unseen.INVISIBLE,)
    document.write_text("<a>\ta\u00a0ñ עברית\n</a>")
    assert (await worker.outline(document)).unseen == ()
    document.write_text(f"<a>{'<b>x</b>' * TEXT_LIMIT_CHARACTERS}</a>")
    long = await worker.outline(document)
    assert (len(long.text), long.unseen) == (TEXT_LIMIT_CHARACTERS, (Unseen.FURTHER_PAGES,))
    document.write_text('<!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>')
    with pytest.raises(UnsupportedDocument):
        await worker.outline(document)
