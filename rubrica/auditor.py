"""The commands ``rubrica audit …``: they read the log and change nothing."""

import json
import string
import sys
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rubrica.asking import ask, fail

if TYPE_CHECKING:
    import grpc

    from audit.client import AuditorClient
    from audit.entries import Entry, Filter, Page

app = typer.Typer(no_args_is_help=True, help="What was signed, by whom, when: the auditor's view of the log.")


PAGE = 500
"""Entries that are asked for at once."""


class Form(StrEnum):
    """How entries are shown."""

    TEXT = "text"
    CSV = "csv"
    JSON = "json"


Socket = Annotated[
    Path | None,
    typer.Option("--socket", help="The core's auditor socket; without it, that of the running 'rubrica up'."),
]
Citizen = Annotated[str, typer.Option("--citizen", help="Pseudonym, or its first digits where they are no other's.")]
Agency = Annotated[str, typer.Option("--agency", help="Client id of a calling system; 'web' is the service's own.")]
Since = Annotated[str, typer.Option("--from", help="Not before; ISO 8601, UTC unless it says otherwise.")]
Until = Annotated[str, typer.Option("--until", help="Before; the same.")]
Type = Annotated[list[str], typer.Option("--type", help="Type of entry, for example COMPLETE; may be repeated.")]
Outcome = Annotated[list[str], typer.Option("--result", help="begun, done, failed or refused; may be repeated.")]


@app.command("list")
def list_(
    citizen: Citizen = "",
    agency: Agency = "",
    since: Since = "",
    until: Until = "",
    type_: Type = [],  # noqa: B006 -- typer's own form
    result: Outcome = [],  # noqa: B006 -- typer's own form
    after: Annotated[int, typer.Option(min=0, help="Only entries behind this position.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    form: Annotated[Form, typer.Option("--format")] = Form.TEXT,
    socket: Socket = None,
) -> None:
    """Show entries in order of position."""
    from rubrica.audit_files import as_json, as_line, write_csv

    wanted = _filter(citizen, agency, since, until, type_, result, socket)

    async def question(channel: "grpc.aio.Channel") -> "Page":
        return await _gather(_client(channel), wanted, after, limit)

    page = ask("auditor", socket, question)
    match form:
        case Form.JSON:
            told = {
                "entries": [as_json(entry) for entry in page.entries],
                "reached": page.reached,
                "at_end": page.at_end,
            }
            typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        case Form.CSV:
            write_csv(sys.stdout, page.entries)
        case Form.TEXT:
            for entry in page.entries:
                typer.echo(as_line(entry))
    if not page.at_end:
        typer.echo(f"there is more: --after {page.reached}", err=True)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="ENTRY", help="Id as in a list or receipt, its first symbols, or a position.")
    ],
    socket: Socket = None,
) -> None:
    """Show one entry with its leaf, as JSON."""
    from rubrica.audit_files import as_json
    from rubrica.audit_names import entry_named

    async def question(channel: "grpc.aio.Channel") -> "Entry":
        return await entry_named(_client(channel), name)

    entry = ask("auditor", socket, question)
    typer.echo(json.dumps({**as_json(entry), "leaf": entry.leaf.encoded.hex()}, indent=2, ensure_ascii=False))


@app.command()
def prove(
    entry_id: Annotated[str, typer.Argument(metavar="ID", help="Id of an entry, as in a list or receipt.")],
    out: Annotated[Path | None, typer.Option(help="A file for the proof; standard output without it.")] = None,
    socket: Socket = None,
) -> None:
    """Give a proof that an entry is in the log (C2SP tlog-proof); it can be checked offline, for ever."""

    async def question(channel: "grpc.aio.Channel") -> str:
        return await _client(channel).proof(entry_id)

    proof = ask("auditor", socket, question)
    if out is None:
        typer.echo(proof, nl=False)
        return
    try:
        out.write_text(proof, encoding="utf-8")
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}")


@app.command()
def tree(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one that this command made before.")],
    socket: Socket = None,
) -> None:
    """Fetch the tree as it is published, into a folder that can be checked offline: only what is not there yet."""
    from rubrica.audit_tree import KeptDiffers, fetch

    async def question(channel: "grpc.aio.Channel") -> int:
        return await fetch(_client(channel), folder.absolute())

    try:
        size = ask("auditor", socket, question)
    except KeptDiffers as error:
        fail(str(error))
    except OSError as error:
        fail(f"{folder} cannot be written: {error.strerror}")
    typer.echo(f"{size} leaves in {folder}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is empty, or not there yet.")],
    citizen: Citizen = "",
    agency: Agency = "",
    since: Since = "",
    until: Until = "",
    type_: Type = [],  # noqa: B006 -- typer's own form
    result: Outcome = [],  # noqa: B006 -- typer's own form
    socket: Socket = None,
) -> None:
    """Write the leaves as they are, with JSON, CSV and counts: all of it or nothing."""
    from domain.clock import SystemClock
    from rubrica.audit_files import FolderNotEmpty, exporting

    now = SystemClock().now()
    asked = _filter(citizen, agency, since, until, type_, result, socket)
    # Without an end in time an export of a busy log would have none.
    wanted = replace(asked, until=min(asked.until or now, now))
    try:
        with exporting(folder.absolute(), wanted, now) as files:

            async def question(channel: "grpc.aio.Channel") -> None:
                after, at_end = 0, False
                while not at_end:
                    page = await _client(channel).page(wanted, after=after, limit=PAGE)
                    files.add(page.entries)
                    after, at_end = page.reached, page.at_end

            ask("auditor", socket, question)
    except FolderNotEmpty as error:
        fail(str(error))
    except OSError as error:
        fail(f"{folder} cannot be written: {error.strerror}")
    typer.echo(f"{files.told['entries']} entries in {folder}")
    for kind, count in files.told["by_type"].items():
        typer.echo(f"{count:>8} {kind}")


async def _gather(client: "AuditorClient", wanted: "Filter", after: int, limit: int) -> "Page":
    """Pages until there are enough entries or no more."""
    from audit.entries import Page

    entries: list[Entry] = []
    while True:
        page = await client.page(wanted, after=after, limit=limit - len(entries))
        entries.extend(page.entries)
        after = page.reached
        if page.at_end or len(entries) >= limit:
            return Page(entries, after, page.at_end)


def _client(channel: "grpc.aio.Channel") -> "AuditorClient":
    from audit.client import AuditorClient
    from authn.client import call

    return AuditorClient(channel, call)


def _filter(
    citizen: str, agency: str, since: str, until: str, types: list[str], results: list[str], socket: Path | None
) -> "Filter":
    from audit.entries import Filter, Result
    from audit.log import EventTag

    for given, known in ((types, EventTag), (results, Result)):
        for name in given:
            if name not in set(known):
                fail(f"'{name}' is none of {', '.join(known)}")
    return Filter(
        pid=_pseudonym(citizen, socket),
        agency=agency,
        since=_moment(since),
        until=_moment(until),
        types=frozenset(EventTag(name) for name in types),
        results=frozenset(Result(name) for name in results),
    )


def _pseudonym(digits: str, socket: Path | None) -> bytes:
    """Whole as it is; of a beginning, the only one in the log that has it."""
    from audit.entries import PID_SIZE_BYTES
    from rubrica.audit_names import citizen_named

    if not set(digits) <= set(string.hexdigits):
        fail("a pseudonym is written in hexadecimal digits")
    if len(digits) > 2 * PID_SIZE_BYTES:
        fail(f"a pseudonym has {2 * PID_SIZE_BYTES} hexadecimal digits")
    if len(digits) in (0, 2 * PID_SIZE_BYTES):
        return bytes.fromhex(digits)

    async def question(channel: "grpc.aio.Channel") -> bytes:
        return await citizen_named(_client(channel), digits)

    return ask("auditor", socket, question)


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail(f"'{text}' is no time in ISO 8601, for example 2026-03-02T09:00:00Z")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
