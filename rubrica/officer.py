"""The commands ``rubrica officer …``: keys of officers, and what they do at the desk with them."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rubrica.asking import ask, fail

if TYPE_CHECKING:
    import grpc

    from authn.officer_client import OfficerKey, OfficersClient

app = typer.Typer(no_args_is_help=True, help="Officers, and what they do for citizens.")

Socket = Annotated[
    Path | None,
    typer.Option("--socket", help="The core's operator socket; without it, that of the running 'rubrica up'."),
]
KeyFile = Annotated[Path, typer.Option("--key", help="The officer's key, made by 'rubrica officer add'.")]
Out = Annotated[Path, typer.Option(help="Folder for the papers; each is written for this user alone (0600).")]
Proof = Annotated[str, typer.Option(help="How the identity was proved: a short code, for example document:office-12.")]
Lang = Annotated[str, typer.Option("--language", help="Of the papers: es or en.")]


@app.command()
def add(
    officer_id: Annotated[str, typer.Argument(help="Stands in the log and on papers; not a name or a number.")],
    nif: Annotated[str, typer.Option(help="The officer's own; kept only so that nobody serves themselves.")],
    role: Annotated[str, typer.Option(help="registrar or supervisor.")] = "registrar",
    out: Annotated[Path, typer.Option(help="Folder for the key, <officer id>.pem (0600).")] = Path(),
    socket: Socket = None,
) -> None:
    """Make a key for an officer and enter the officer; prints the key's file."""
    from authn.officer_client import OfficerKey

    key = OfficerKey.draw(officer_id)
    if Path(officer_id).name != officer_id:
        fail("an officer's id is no path")
    try:
        path = key.write(out)
    except FileExistsError:
        fail(f"{out / officer_id}.pem is there already")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}")
    try:
        ask("operator", socket, lambda channel: _client(channel).add(key, role=role, nif=nif))
    except typer.Exit:
        # A key that nobody knows would only be mistaken for one that counts.
        path.unlink()
        raise
    typer.echo(path)


@app.command()
def end(
    officer_id: Annotated[str, typer.Argument()],
    socket: Socket = None,
) -> None:
    """Let nothing that this officer signs hold any more."""
    ask("operator", socket, lambda channel: _client(channel).end(officer_id))


@app.command()
def show(socket: Socket = None) -> None:
    """Print every officer: id, role, state, since when, actions within the last hour."""
    for one in ask("operator", socket, lambda channel: _client(channel).all()):
        typer.echo(f"{one.officer_id}\t{one.role}\t{one.state}\t{one.added:%Y-%m-%d}\t{one.actions_last_hour}")


@app.command()
def register(
    key: KeyFile,
    nif: Annotated[str, typer.Option(help="NIF or NIE.")],
    given_name: Annotated[str, typer.Option()],
    first_surname: Annotated[str, typer.Option()],
    phone: Annotated[str, typer.Option(help="Mobile phone, with country code.")],
    email: Annotated[str, typer.Option()],
    proof: Proof,
    second_surname: Annotated[str, typer.Option()] = "",
    level: Annotated[str, typer.Option(help="basic or advanced; signing needs advanced.")] = "advanced",
    language: Lang = "es",
    out: Out = Path(),
    socket: Socket = None,
) -> None:
    """Enter a citizen; prints the files of acceptance and receipt, which holds the activation code."""
    from domain.statements import CONDITIONS_VERSION

    officer = _read(key)
    fields = {
        "nif": nif,
        "given_name": given_name,
        "first_surname": first_surname,
        "second_surname": second_surname,
        "phone": phone,
        "email": email,
        "level": level,
        "proof": proof,
        "language": language,
        "conditions": CONDITIONS_VERSION,
    }
    _check_folder(out)
    done = ask("operator", socket, lambda channel: _client(channel).register(officer, fields))
    _write(out, acceptance=done.acceptance, receipt=done.receipt)


@app.command()
def renew(
    key: KeyFile,
    nif: Annotated[str, typer.Option()],
    proof: Proof,
    phone: Annotated[str, typer.Option(help="A new phone at the same time; needs a supervisor.")] = "",
    supervisor: Annotated[Path | None, typer.Option(help="The supervisor's key.")] = None,
    language: Lang = "es",
    out: Out = Path(),
    socket: Socket = None,
) -> None:
    """Give a citizen a new activation code; prints the receipt's file. The older code ends."""
    officer, second = _read(key), None if supervisor is None else _read(supervisor)
    fields = {"nif": nif, "phone": phone, "proof": proof, "language": language}
    _check_folder(out)
    done = ask("operator", socket, lambda channel: _client(channel).renew(officer, fields, supervisor=second))
    _write(out, receipt=done.receipt)


@app.command()
def verify(
    csv: Annotated[str, typer.Argument(help="As printed on the paper.")],
    file: Annotated[Path | None, typer.Argument(help="A PDF that is to be that paper.")] = None,
    socket: Socket = None,
) -> None:
    """Say what is known of a paper by its CSV; 0 only if it is ours, and the file is that paper."""
    import hashlib

    from authn.officer_client import PapersClient

    known = ask("operator", socket, lambda channel: PapersClient(channel).verify(csv))
    typer.echo(f"{known.kind}\t{known.made:%Y-%m-%d %H:%M:%S} UTC\t{known.sha256.hex()}")
    try:
        same = file is None or hashlib.sha256(file.read_bytes()).digest() == known.sha256
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}")
    if not same:
        fail(f"{file} is not the paper that was handed out under this code")


def _client(channel: "grpc.aio.Channel") -> "OfficersClient":
    from authn.officer_client import OfficersClient
    from domain.clock import SystemClock

    return OfficersClient(channel, SystemClock())


def _read(path: Path) -> "OfficerKey":
    from authn.officer_client import OfficerKey
    from domain.errors import MalformedRequest

    try:
        return OfficerKey.read(path)
    except MalformedRequest as error:
        fail(error.public_detail)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")


def _check_folder(folder: Path) -> None:
    # Before the citizen is entered: a receipt that cannot be written is an activation code that is lost.
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        fail(f"{folder} is not a folder that can be written")


def _write(folder: Path, **papers: bytes) -> None:
    mark = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    for name, pdf in papers.items():
        path = folder / f"{name}-{mark}.pdf"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pdf)
        typer.echo(path)
