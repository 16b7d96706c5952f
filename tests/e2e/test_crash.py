"""Core and edge killed between COMPLETE and the last SIGN: the rest is signed after restart, with the same approval."""

import contextlib
import random
import sqlite3
import threading
import time
from datetime import UTC, datetime

import cbor2
import httpx
import pytest

from documents.validate import validate
from rubrica_client import CitizenBrowser, RubricaProblem
from tests.testkit.documents import plain_pdf

DOCUMENTS = 10


@pytest.mark.parametrize("seed", [1, 2])
def test_a_batch_survives_the_death_of_core_and_edge(seed, service, citizen, trust, tmp_path):
    chance = random.Random(seed)  # noqa: S311 - a seeded moment, no secret
    documents = []
    for number in range(DOCUMENTS):
        documents.append(tmp_path / f"documento-{number}.pdf")
        documents[-1].write_bytes(plain_pdf(f"Documento {number}"))
    before = completes(service)
    with service.agency() as agency, CitizenBrowser(service.token_key) as browser:
        transaction_id, review_url = service.submit(agency, citizen, documents, level="B-T")
        return_url = service.approve(browser, citizen, review_url)
        loading = threading.Thread(target=load_until_it_answers, args=(browser, return_url))
        loading.start()
        for name in chance.sample(["core", "edge"], 2):
            time.sleep(chance.uniform(0.0, 0.3))
            service.kill(name)
        loading.join(timeout=90)
        assert not loading.is_alive()
        signed = service.collect(agency, transaction_id, documents, tmp_path, seconds=90)
    for document, path in zip(documents, signed, strict=True):
        assert path.read_bytes().startswith(document.read_bytes())
        with path.open("rb") as file:
            report = validate(file, trust, datetime.now(UTC))
        assert (report.indication, report.signatures[0].level) == ("TOTAL-PASSED", "B-T")
    made = completes(service)[len(before) :]
    assert sorted(leaf["facts"]["item"] for leaf in made) == list(range(1, DOCUMENTS + 1))
    assert len({leaf["facts"]["cid"] for leaf in made}) == 1


def load_until_it_answers(browser, return_url):
    """A citizen who reloads the page while the edge is away."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with contextlib.suppress(RubricaProblem, httpx.HTTPError):
            browser.follow(return_url)
            return
        time.sleep(0.2)


def completes(service):
    """COMPLETE leaves of document signatures, oldest first."""
    database = service.running.state / "core" / "core.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT leaf FROM log_pending WHERE tag = 'COMPLETE' ORDER BY position").fetchall()
    return [cbor2.loads(leaf) for (leaf,) in rows]
