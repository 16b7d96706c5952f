"""The edge as its composition root builds it."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from documents.model import FetchKind
from domain.errors import TimestampUnavailable
from rubrica.edge import build
from rubrica.settings.edge import EdgeSettings
from tests.testkit.pki import InMemoryPKI


async def test_pages_fetch_for_themselves_and_no_timestamps(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(InMemoryPKI().authority.certificates.root.public_bytes(Encoding.PEM).decode())
    settings = EdgeSettings(
        core_socket=tmp_path / "core.sock",
        public_url="https://edge.test",
        gate_url="https://gate.test",
        database_url=f"sqlite+aiosqlite:///{tmp_path / 'edge.db'}",
        storage_dir=tmp_path / "documents",
        seal_key_file=tmp_path / "seal.key",
        tsa_url="http://127.0.0.1:1/tsa",
        trust_dir=tmp_path,
    )
    async with build(settings) as app:
        of_pages: Any = app.state.web.fetch
        of_signing: Any = app.state.web.approvals._signing._fetch
        assert of_pages is not of_signing
        with pytest.raises(TimestampUnavailable, match="not allowed"):
            await of_pages(FetchKind.TIMESTAMP, "", b"query")
        with pytest.raises(TimestampUnavailable, match="no answer"):
            await of_signing(FetchKind.TIMESTAMP, "", b"query")
