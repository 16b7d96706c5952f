import logging
from collections.abc import Iterator

import pytest

from domain.algorithms import KeyType
from tests.testkit.pki import Certified, InMemoryPKI


@pytest.fixture(scope="session")
def pki() -> InMemoryPKI:
    """Nobody revokes here; tests that do make their own."""
    return InMemoryPKI()


@pytest.fixture(scope="session")
def citizen(pki: InMemoryPKI) -> Certified:
    return pki.certify(KeyType.P256)


@pytest.fixture(scope="session")
def rsa_citizen(pki: InMemoryPKI) -> Certified:
    return pki.certify(KeyType.RSA3072)


@pytest.fixture(autouse=True)
def _quiet_parsers() -> Iterator[None]:
    """pyHanko logs a traceback for every certificate it does not trust, and here most are not."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("pyhanko")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
