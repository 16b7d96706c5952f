"""Papers that the service hands out, sealed: what is on them, and what is kept so that anybody can check them.

Of a paper only its digest is kept, found by the blind index of its CSV: a receipt holds an activation code.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from authn.columns import ColumnCipher
from authn.tables import UTCDateTime, metadata
from domain.clock import Clock, to_epoch_seconds
from domain.codes import draw_code, grouped, is_code, normalise_code
from domain.errors import NotFound
from domain.ids import Randomness
from hsm.keys import MACKey
from hsm.vault import Vault

paper = sa.Table(
    "paper",
    metadata,
    sa.Column("csv_index", sa.LargeBinary(32), primary_key=True),
    sa.Column("index_version", sa.Integer, nullable=False, comment="of K_idx"),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("sha256", sa.LargeBinary(32), nullable=False, comment="of the whole sealed file"),
    sa.Column("made", UTCDateTime, nullable=False),
    sa.Column("guard", sa.LargeBinary, nullable=False, comment="authenticates what the row says"),
)


class PaperKind(StrEnum):
    """Which paper; also the name of its template."""

    RECEIPT = "receipt"
    ACCEPTANCE = "acceptance"


class Language(StrEnum):
    """Languages of papers."""

    ES = "es"
    EN = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """What is to be laid out; its ``repr`` shows none of it."""

    kind: PaperKind
    language: Language
    fields: Mapping[str, str] = field(repr=False)
    """Named as in the template; ``conditions`` is a version."""


class Printer(Protocol):
    """Port to the press."""

    async def make(self, paper: Paper, at: datetime) -> bytes:
        """The sealed PDF."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPaper:
    """A sealed paper, and the row that will know it, not stored yet."""

    pdf: bytes = field(repr=False)
    row: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPaper:
    """What anybody who holds a CSV may know: enough to compare, nothing of the content."""

    kind: PaperKind
    sha256: bytes
    made: datetime


class Papers:
    """Makes papers and answers for them."""

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        vault: Vault,
        columns: ColumnCipher,
        clock: Clock,
        printer: Printer,
        randomness: Randomness = secrets.token_bytes,
    ) -> None:
        self._engine = engine
        self._vault = vault
        self._columns = columns
        self._clock = clock
        self._printer = printer
        self._randomness = randomness

    async def prepare(self, kind: PaperKind, language: Language, fields: Mapping[str, str]) -> PreparedPaper:
        """Draw a CSV and have the paper made and sealed, outside any transaction.

        Raises:
            DependencyUnavailable: The press or the seal does not work now.
            HSMError: The vault does not answer.
        """
        code = draw_code(self._randomness)
        made = self._clock.now().replace(microsecond=0)
        laid_out = Paper(kind=kind, language=language, fields={**fields, "csv": grouped(code)})
        pdf = await self._printer.make(laid_out, made)
        row = {
            "csv_index": await self._index(code),
            "index_version": self._vault.current_version(MACKey.INDEX),
            "kind": kind.value,
            "sha256": hashlib.sha256(pdf).digest(),
            "made": made,
        }
        return PreparedPaper(pdf=pdf, row={**row, "guard": self._columns.guard(*_guarded(row))})

    async def store(self, connection: AsyncConnection, prepared: PreparedPaper) -> None:
        """Keep the row in the caller's transaction."""
        await connection.execute(sa.insert(paper).values(**prepared.row))

    async def verify(self, csv: str) -> KnownPaper:
        """The paper with this CSV.

        Args:
            csv: As printed; spaces, hyphens and case do not count, nor O, I and L for 0 and 1.

        Raises:
            NotFound: None; a code that was mistyped looks the same.
            cryptography.exceptions.InvalidTag: The row was edited behind the core's back.
        """
        code = normalise_code(csv)
        row = None
        if is_code(code):
            index = await self._index(code)
            async with self._engine.connect() as connection:
                row = (await connection.execute(sa.select(paper).where(paper.c.csv_index == index))).mappings().first()
        if row is None:
            raise NotFound("no document of ours has this code")
        self._columns.check(row["guard"], *_guarded(row))
        return KnownPaper(kind=PaperKind(row["kind"]), sha256=row["sha256"], made=row["made"])

    async def _index(self, code: str) -> bytes:
        return await self._vault.mac(MACKey.INDEX, "csv", code)


def _guarded(row: Mapping[str, Any] | sa.RowMapping) -> tuple[str, ...]:
    made = str(to_epoch_seconds(row["made"]))
    return "paper", row["csv_index"].hex(), row["kind"], row["sha256"].hex(), made
