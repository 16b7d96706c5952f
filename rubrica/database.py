"""One engine per process, made here so that every zone treats SQLite and PostgreSQL alike."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def make_engine(url: str, password_file: Path | None = None) -> AsyncEngine:
    """An engine for ``sqlite+aiosqlite:///…`` or ``postgresql+asyncpg://…``; its errors tell no parameters.

    SQLite takes its write lock when a transaction begins: deferred transactions that read first and write later fail
    under load with "database is locked". One connection serves them in order.
    """
    if not url.startswith("sqlite"):
        address = sa.make_url(url)
        if password_file is not None:
            address = address.set(password=password_file.read_text(encoding="utf-8").strip())
        return create_async_engine(address, pool_pre_ping=True, hide_parameters=True)
    engine = create_async_engine(
        url, pool_size=1, max_overflow=0, pool_timeout=30, connect_args={"timeout": 10}, hide_parameters=True
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
