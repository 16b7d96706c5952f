"""Logs as the processes write them: the library's own default shows local variables in tracebacks."""

from collections.abc import Iterator

import pytest
import structlog

from rubrica.logs import configure_logs


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    configure_logs("debug")
    yield
    structlog.reset_defaults()
