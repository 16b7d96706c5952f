from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from domain.algorithms import KeyType
from tests.testkit.pki import InMemoryPKI, PrivateKey, new_key

OpenSSL = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def pki() -> InMemoryPKI:
    return InMemoryPKI()


@pytest.fixture(scope="session")
def rsa_key() -> PrivateKey:
    return new_key(KeyType.RSA3072)


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """Runs openssl in the test's folder."""

    def call(*arguments: str) -> "CompletedProcess[str]":
        return run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    return call
