"""Makes the PDFs of this folder again: one of each producer, and those that must be refused.

Needs the producers on the maker's machine (see README.md); the tests need only what is committed. Run it from the
project's root: ``python tests/samples/make_samples.py``. Text is ours; fonts are subsets that the producers embed.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import pikepdf
import typst
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pyhanko.keys.internal import translate_pyca_cryptography_cert_to_asn1, translate_pyca_cryptography_key_to_asn1
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import MDPPerm
from reportlab.pdfgen.canvas import Canvas

HERE = Path(__file__).parent
LIMIT_BYTES = 100_000
TITLE = "Solicitud de prueba"
LINES = (
    "Doña Begoña García Núñez solicita que se tramite este documento de prueba.",
    "Importe: 1.234,56 euros. Señas: calle del Pez, 8, Zaragoza.",
    "No tiene valor: se hizo para los ensayos de firma de este proyecto.",
)
HTML = f"<!doctype html><meta charset=utf-8><title>{TITLE}</title><h1>{TITLE}</h1>" + "".join(
    f"<p>{line}</p>" for line in LINES
)
PLAIN_ASCII = (TITLE, "Importe: 1.234,56 euros.", "Documento de ensayo, sin valor.")


def run(*command: str | Path, cwd: Path) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True, timeout=180)


def debian(package: str) -> str:
    """Version of an installed package."""
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], check=True, capture_output=True, text=True
    )
    return f"{package} {shown.stdout} (Debian)"


def pypi(package: str) -> str:
    return f"{package} {version(package)} (PyPI)"


# --- one function per producer: makes ``out`` in the empty folder ``work``


def libreoffice(work: Path, out: Path) -> str:
    (work / "doc.html").write_text(HTML)
    home = f"-env:UserInstallation=file://{work}/profile"
    run("soffice", home, "--headless", "--writer", "--convert-to", "pdf:writer_web_pdf_Export", "doc.html", cwd=work)
    shutil.move(work / "doc.pdf", out)
    return debian("libreoffice-core-nogui")


def cairo(work: Path, out: Path) -> str:
    text = "".join(f'<text x="40" y="{90 + 24 * n}">{line}</text>' for n, line in enumerate((TITLE, *LINES)))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="595" height="842" font-size="12">{text}</svg>'
    (work / "doc.svg").write_text(svg)
    run("rsvg-convert", "-f", "pdf", "-o", out, "doc.svg", cwd=work)
    return f"{debian('librsvg2-bin')}, {debian('libcairo2')}"


def postscript(work: Path) -> Path:
    shown = "".join(f"72 {720 - 24 * n} moveto ({line}) show\n" for n, line in enumerate(PLAIN_ASCII))
    source = work / "doc.ps"
    source.write_text(f"%!PS\n/Helvetica findfont 12 scalefont setfont\n{shown}showpage\n")
    return source


def ghostscript(work: Path, out: Path) -> str:
    run("gs", "-q", "-sDEVICE=pdfwrite", "-dNOPAUSE", "-dBATCH", f"-sOutputFile={out}", postscript(work), cwd=work)
    return debian("ghostscript")


def ghostscript_14(work: Path, out: Path) -> str:
    run("ps2pdf14", postscript(work), out, cwd=work)
    return debian("ghostscript")


def latex(work: Path, out: Path) -> str:
    body = "\n\n".join(LINES)
    (work / "doc.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\begin{document}\n"
        f"\\section*{{{TITLE}}}\n{body}\n\\end{{document}}\n"
    )
    run("pdflatex", "-interaction=batchmode", "doc.tex", cwd=work)
    shutil.move(work / "doc.pdf", out)
    return debian("texlive-latex-base")


def typst_(work: Path, out: Path) -> str:
    (work / "doc.typ").write_text(f"= {TITLE}\n\n" + "\n\n".join(LINES))
    typst.compile(str(work / "doc.typ"), output=str(out))
    return pypi("typst")


def typst_archive(work: Path, out: Path) -> str:
    (work / "doc.typ").write_text(f'#set document(title: "{TITLE}")\n= {TITLE}\n\n' + "\n\n".join(LINES))
    typst.compile(str(work / "doc.typ"), output=str(out), pdf_standards=["a-2b"])
    return pypi("typst")


def reportlab(_work: Path, out: Path) -> str:
    canvas = Canvas(str(out))
    for number, line in enumerate((TITLE, *LINES)):
        canvas.drawString(72, 720 - 24 * number, line)
    canvas.save()
    return pypi("reportlab")


def reportlab_form(_work: Path, out: Path) -> str:
    canvas = Canvas(str(out))
    canvas.drawString(72, 720, TITLE)
    canvas.acroForm.textfield(name="Rubrica1", value="Begoña", x=72, y=660, width=200, height=20)
    canvas.acroForm.checkbox(name="acepta", x=72, y=620, checked=True)
    canvas.save()
    return pypi("reportlab")


def chromium(work: Path, out: Path) -> str:
    (work / "doc.html").write_text(HTML)
    run(
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"),
        *(f"--user-data-dir={work}/profile", f"--print-to-pdf={out}", "doc.html"),
        cwd=work,
    )
    return debian("chromium")


def wkhtmltopdf(work: Path, out: Path) -> str:
    (work / "doc.html").write_text(HTML)
    run("env", "QT_QPA_PLATFORM=offscreen", "wkhtmltopdf", "-q", "doc.html", out, cwd=work)
    return debian("wkhtmltopdf")


def groff(work: Path, out: Path) -> str:
    (work / "doc.ms").write_text(".TL\n" + "\n.PP\n".join(PLAIN_ASCII) + "\n")
    with out.open("wb") as target:
        subprocess.run(["groff", "-ms", "-Tpdf", "doc.ms"], cwd=work, check=True, stdout=target)
    return debian("groff")


def enscript(work: Path, out: Path) -> str:
    (work / "doc.txt").write_text("\n".join(PLAIN_ASCII))
    run("enscript", "-q", "-B", "-o", "doc.ps", "doc.txt", cwd=work)
    run("ps2pdf", "doc.ps", out, cwd=work)
    return f"{debian('enscript')}, {debian('ghostscript')}"


def mutool(work: Path, out: Path) -> str:
    shown = "".join(f"BT /F1 12 Tf 72 {720 - 24 * n} Td ({line}) Tj ET\n" for n, line in enumerate(PLAIN_ASCII))
    (work / "page.txt").write_text(f"%%MediaBox 0 0 595 842\n%%Font F1 Helvetica\n{shown}")
    run("mutool", "create", "-o", out, "page.txt", cwd=work)
    return debian("mupdf-tools")


def from_reportlab(work: Path) -> Path:
    source = work / "source.pdf"
    reportlab(work, source)
    return source


def pdfunite(work: Path, out: Path) -> str:
    source = from_reportlab(work)
    run("pdfunite", source, source, out, cwd=work)
    return debian("poppler-utils")


def pdftocairo(work: Path, out: Path) -> str:
    run("pdftocairo", "-pdf", from_reportlab(work), out, cwd=work)
    return debian("poppler-utils")


def qpdf(*options: str, of: Callable[[Path, Path], str] = reportlab) -> Callable[[Path, Path], str]:
    def make(work: Path, out: Path) -> str:
        of(work, work / "source.pdf")
        run("qpdf", *options, "source.pdf", out, cwd=work)
        return f"{debian('qpdf')} {shlex.join(options)}"

    return make


def pikepdf_(_work: Path, out: Path) -> str:
    with pikepdf.new() as document:
        page = document.add_blank_page(page_size=(595, 842))
        page.Contents = document.make_stream(b"0.9 g 72 600 200 100 re f")
        document.save(out, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return pypi("pikepdf")


def encrypted(**options: object) -> Callable[[Path, Path], str]:
    def make(work: Path, out: Path) -> str:
        with pikepdf.open(from_reportlab(work)) as document:
            document.save(out, encryption=pikepdf.Encryption(**options))  # type: ignore[arg-type]
        return pypi("pikepdf")

    return make


def no_line_end(work: Path, out: Path) -> str:
    out.write_bytes(from_reportlab(work).read_bytes().rstrip())
    return f"{pypi('reportlab')}, without a line end behind %%EOF"


def hybrid(_work: Path, out: Path) -> str:
    """A table for old readers and a stream for new ones, as word processors write it (ISO 32000-1 §7.5.8.4)."""
    body = b"%PDF-1.5\n"
    offsets: dict[int, int] = {}
    stream = b"0.9 g 72 600 200 100 re f"
    packed = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    header = b"4 0 "
    for number, content in (
        (1, b"<</Type/Catalog/Pages 2 0 R>>"),
        (2, b"<</Type/Pages/Kids[3 0 R]/Count 1>>"),
        (3, b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 5 0 R>>"),
        (5, b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream)),
        (
            6,
            b"<</Type/ObjStm/N 1/First %d/Length %d>>stream\n%s%s\nendstream"
            % (len(header), len(header) + len(packed), header, packed),
        ),
    ):
        offsets[number] = len(body)
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    cross_reference_stream = len(body)
    entry = bytes([2, 0, 6, 0])  # object 4 is the first one in object stream 6
    body += b"7 0 obj\n<</Type/XRef/Size 8/W[1 2 1]/Index[4 1]/Length 4>>stream\n%s\nendstream\nendobj\n" % entry
    table = len(body)
    lines = [b"0000000004 65535 f \n"]
    for number in range(1, 8):
        if number == 4:
            lines.append(b"0000000000 65535 f \n")
        else:
            lines.append(b"%010d 00000 n \n" % offsets.get(number, cross_reference_stream))
    body += b"xref\n0 8\n" + b"".join(lines)
    body += b"trailer\n<</Size 8/Root 1 0 R/XRefStm %d>>\nstartxref\n%d\n%%%%EOF\n" % (cross_reference_stream, table)
    out.write_bytes(body)
    return "written by hand: hybrid cross-references"


def stranger() -> signers.SimpleSigner:
    """Somebody whose key is forgotten at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Firmante de ensayo")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.KeyUsage(*(n == 1 for n in range(9))), critical=True)
        .sign(key, hashes.SHA256())
    )
    return signers.SimpleSigner(
        signing_cert=translate_pyca_cryptography_cert_to_asn1(certificate),
        signing_key=translate_pyca_cryptography_key_to_asn1(key),
        cert_registry=None,
    )


def signed(permission: MDPPerm | None) -> Callable[[Path, Path], str]:
    def make(work: Path, out: Path) -> str:
        metadata = signers.PdfSignatureMetadata(
            field_name="Signature1", certify=permission is not None, docmdp_permissions=permission or MDPPerm.FILL_FORMS
        )
        writer = IncrementalPdfFileWriter(BytesIO(from_reportlab(work).read_bytes()))
        pdf_signer = signers.PdfSigner(metadata, signer=stranger())
        out.write_bytes(pdf_signer.sign_pdf(writer, bytes_reserved=8192).getvalue())
        return f"{pypi('pyhanko')}, {'certified' if permission else 'signed'} by a key thrown away"

    return make


def xfa(work: Path, out: Path) -> str:
    with pikepdf.open(from_reportlab(work)) as document:
        form = document.make_stream(b"<xdp:xdp xmlns:xdp='http://ns.adobe.com/xdp/'/>")
        document.Root.AcroForm = document.make_indirect(pikepdf.Dictionary(Fields=[], XFA=form))
        document.save(out)
    return pypi("pikepdf")


def truncated(work: Path, out: Path) -> str:
    whole = from_reportlab(work).read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    return f"{pypi('reportlab')}, cut in half"


def not_a_pdf(_work: Path, out: Path) -> str:
    out.write_text("\n".join(LINES))
    return "plain text"


def empty(_work: Path, out: Path) -> str:
    out.write_bytes(b"")
    return "nothing"


NO_CHANGES = pikepdf.Permissions(modify_other=False, modify_annotation=False, modify_form=False)

GOOD: dict[str, Callable[[Path, Path], str]] = {
    "cairo": cairo,
    "chromium": chromium,
    "enscript": enscript,
    "ghostscript": ghostscript,
    "ghostscript-1.4": ghostscript_14,
    "groff": groff,
    "hybrid-xref": hybrid,
    "latex": latex,
    "libreoffice": libreoffice,
    "mutool": mutool,
    "no-line-end": no_line_end,
    "owner-password-aes256": encrypted(owner="dueño", user="", R=6),
    "owner-password-rc4": encrypted(owner="owner", user="", R=3, aes=False, metadata=False),
    "pikepdf": pikepdf_,
    "poppler-pdftocairo": pdftocairo,
    "poppler-pdfunite": pdfunite,
    "qpdf-encrypted-form": qpdf("--encrypt", "", "owner", "256", "--", of=reportlab_form),
    "qpdf-linearized": qpdf("--linearize"),
    "qpdf-object-streams": qpdf("--object-streams=generate"),
    "qpdf-qdf": qpdf("--qdf", "--object-streams=disable"),
    "qpdf-uncompressed": qpdf("--stream-data=uncompress"),
    "reportlab": reportlab,
    "reportlab-form": reportlab_form,
    "signed-before": signed(None),
    "signed-certified-forms": signed(MDPPerm.FILL_FORMS),
    "typst": typst_,
    "typst-pdfa": typst_archive,
    "wkhtmltopdf": wkhtmltopdf,
}
REFUSED: dict[str, Callable[[Path, Path], str]] = {
    "certified-no-changes": signed(MDPPerm.NO_CHANGES),
    "empty": empty,
    "needs-password": encrypted(owner="owner", user="secreto", R=6),
    "not-a-pdf": not_a_pdf,
    "owner-forbids": encrypted(owner="owner", user="", R=6, allow=NO_CHANGES),
    "truncated": truncated,
    "xfa": xfa,
}


def main() -> int:
    """Make them all, or those named on the command line."""
    rows: dict[str, str] = {}
    for folder, makers in (("good", GOOD), ("refused", REFUSED)):
        (HERE / folder).mkdir(exist_ok=True)
        for name, make in makers.items():
            if len(sys.argv) > 1 and name not in sys.argv[1:]:
                continue
            out = HERE / folder / f"{name}.pdf"
            with tempfile.TemporaryDirectory() as work:
                producer = make(Path(work), out)
            size = out.stat().st_size
            if size > LIMIT_BYTES:
                raise SystemExit(f"{out} has {size} bytes")
            rows[f"{folder}/{name}.pdf"] = producer
            print(f"{size:7} {folder}/{name}.pdf  {producer}")  # noqa: T201 - a script
    write_readme(rows)
    return 0


def write_readme(made: dict[str, str]) -> None:
    """Bring the table of README.md up to date with what was made."""
    readme = HERE / "README.md"
    head, _, table = readme.read_text().partition("| File | Producer |\n|---|---|\n")
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", table, flags=re.MULTILINE)) | made
    lines = "".join(f"| `{name}` | {producer} |\n" for name, producer in sorted(rows.items()))
    readme.write_text(f"{head}| File | Producer |\n|---|---|\n{lines}")


if __name__ == "__main__":
    sys.exit(main())
