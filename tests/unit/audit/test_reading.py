"""What auditors see of the log: every leaf once, with what belongs to it, and never a person."""

import asyncio
import base64
import secrets
from datetime import timedelta

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit.entries import Entry, EvidenceState, Filter, Leaf, Result
from audit.log import Event, EventTag
from audit.reading import CHUNK, SCAN_LIMIT
from authn.agencies import Right
from domain.digests import Digest
from domain.errors import FactorMismatch, NotFound
from domain.ids import ClientId
from signer import tables
from tests.testkit.core import NIF, PASSWORD, Played, playing
from tests.testkit.time import FrozenClock

AGENCY = "ayuntamiento"
AGENCY_NAME = "Ayuntamiento de Ejemplo"


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        yield played


async def everything(played: Played, wanted: Filter | None = None, *, limit: int = 7) -> list[Entry]:
    found, after, at_end = [], 0, False
    while not at_end:
        page = await played.core.reader.page(wanted or Filter(), after=after, limit=limit)
        assert len(page.entries) <= limit
        found += page.entries
        after, at_end = page.reached, page.at_end
    return found


async def append(played: Played, *events: Event) -> None:
    async with played.core.engine.begin() as connection:
        await played.core.log.append(connection, *events)


async def test_a_signatures_line_names_format_agency_proof_digest_and_serial(played):
    _, sad = await played.approved(2)
    await played.sign(sad, (0, 1, 2))
    lines = await everything(played, Filter(types=frozenset({EventTag.COMPLETE})))
    (credential,) = await played.rows(tables.credential)
    assert [line.leaf.facts["item"] for line in lines] == [1, 2]
    for number, line in enumerate(lines, 1):
        assert (line.purpose, line.format, line.packaging, line.algorithm) == ("sign", "pades", "enveloped", "ES256")
        assert (line.agency, line.agency_name) == ("web", "Rúbrica")
        assert line.proved_by == "password+sms"
        assert line.evidence is EvidenceState.ATTESTED
        assert line.digests == (Digest.of(f"Solicitud {number}".encode()),)
        assert line.certificate_serial == credential["serial"]
        assert line.leaf.result is Result.DONE
    (certificate,) = await everything(played, Filter(types=frozenset({EventTag.CERT_ISSUE})))
    assert (certificate.purpose, certificate.digests) == ("certificate", ())
    assert certificate.certificate_serial == credential["serial"]


async def test_a_changed_row_is_found_out_and_not_shown(played):
    _, sad = await played.approved()
    await played.sign(sad)
    (row,) = await played.rows(tables.request)
    items = row["items"]
    forged = base64.b64encode(Digest.of(b"another document").value).decode()
    items[1]["digests"] = [["sha256", forged]]
    await played.execute(sa.update(tables.request).values(items=items))
    (line,) = await everything(played, Filter(types=frozenset({EventTag.COMPLETE})))
    assert line.evidence is EvidenceState.DIFFERS
    assert (line.digests, line.certificate_serial, line.agency_name) == ((), "", "")
    # What the log itself says stands.
    assert (line.format, line.agency, line.proved_by) == ("pades", "web", "password+sms")


async def test_an_erased_row_and_a_signature_without_approval(played):
    _, sad = await played.approved()
    await played.sign(sad)
    (before,) = await played.rows(tables.approval)
    await append(played, Event(tag=EventTag.COMPLETE, pid=secrets.token_bytes(32), facts={"cid": before["cid"]}))
    true, invented = await everything(played, Filter(types=frozenset({EventTag.COMPLETE})))
    assert true.evidence is EvidenceState.ATTESTED
    assert (invented.evidence, invented.digests, invented.proved_by) == (EvidenceState.UNATTESTED, (), "")
    await played.execute(sa.delete(tables.approval))
    assert {line.evidence for line in await everything(played, Filter(types=frozenset({EventTag.COMPLETE})))} == {
        EvidenceState.ERASED
    }


async def test_filters(played):
    await played.register(nif="87654321X", phone="+34687654321")
    staged = await played.stage()
    await played.begin(staged, password="Equivocada-9")
    begun = await played.begin(staged)
    with pytest.raises(FactorMismatch):
        await played.complete(staged, begun, "000000")
    _, sad = await played.approved()
    await played.sign(sad)
    all_ = await everything(played)
    assert [entry.leaf.id for entry in all_] == [leaf["id"] for leaf in await played.leaves()]
    pid = next(entry.leaf.pid for entry in all_ if entry.leaf.tag is EventTag.COMPLETE)
    middle = all_[len(all_) // 2].leaf.time

    async def kept(**parts: object) -> list[str]:
        return [entry.leaf.id for entry in await everything(played, Filter(**parts))]

    def those(take) -> list[str]:
        found = [entry.leaf.id for entry in all_ if take(entry)]
        assert found, "the filter would show nothing"
        assert len(found) < len(all_)
        return found

    assert await kept(pid=pid) == those(lambda entry: entry.leaf.pid == pid)
    assert await kept(agency="web") == those(lambda entry: entry.agency == "web")
    assert await kept(agency=AGENCY) == []
    failed = frozenset({Result.FAILED})
    assert await kept(results=failed) == those(lambda entry: entry.leaf.tag is EventTag.AUTH_FAIL)
    assert len(await kept(results=failed)) == 2
    assert await kept(since=middle) == those(lambda entry: entry.leaf.time >= middle)
    assert await kept(until=middle) == those(lambda entry: entry.leaf.time < middle)
    types = frozenset({EventTag.INTENT, EventTag.ENROL})
    assert await kept(types=types) == those(lambda entry: entry.leaf.tag in types)
    both = await kept(pid=pid, types=types, agency="web")
    assert both == those(lambda entry: entry.leaf.tag is EventTag.INTENT)


async def test_a_wrong_code_is_not_proved_by_the_right_one_after_it(played):
    staged = await played.stage()
    begun = await played.begin(staged)
    with pytest.raises(FactorMismatch):
        await played.complete(staged, begun, "000000")
    await played.complete(staged, begun)
    entries = [entry for entry in await everything(played) if entry.leaf.text("cid") == begun.challenge_id]
    assert {entry.leaf.tag: entry.proved_by for entry in entries} == {
        EventTag.OTP_SENT: "",
        EventTag.AUTH_FAIL: "",
        EventTag.AUTH_OK: "password+sms",
    }
    # The failed code counts for the agency that it was sent for.
    assert {entry.agency for entry in entries} == {"web"}


async def test_a_crash_that_the_next_core_ended_is_told_whose_it_was(played):
    staged, sad = await played.approved()
    await played.sign(sad)
    (complete,) = await played.leaves("COMPLETE")
    facts = {**complete["facts"], "reason": "crash"}
    await append(played, Event(tag=EventTag.ABORTED, facts=facts))
    (line,) = await everything(played, Filter(types=frozenset({EventTag.ABORTED})))
    assert (line.leaf.pid, line.leaf.result) == (None, Result.FAILED)
    assert (line.agency, line.format, line.proved_by) == ("web", "pades", "password+sms")
    assert line.evidence is EvidenceState.ATTESTED
    assert staged.client_id == "web"


async def test_paging_while_others_write(played):
    async def write() -> None:
        for number in range(150):
            await append(played, Event(tag=EventTag.ADMIN, facts={"number": number}))

    writing = [asyncio.create_task(write()) for _ in range(3)]
    seen: list[int] = []
    after = 0
    while True:
        page = await played.core.reader.page(Filter(), after=after, limit=11)
        seen += [entry.position for entry in page.entries]
        assert page.reached >= after
        after = page.reached
        if page.at_end and all(task.done() for task in writing):
            break
    after_all = await played.core.reader.page(Filter(), after=after, limit=500)
    seen += [entry.position for entry in after_all.entries]
    assert seen == [entry.position for entry in await everything(played, limit=500)]
    assert len(seen) == len(await played.leaves())


async def test_a_rare_filter_looks_at_a_bounded_number_of_rows(played):
    await append(played, *(Event(tag=EventTag.ADMIN, facts={"n": n}) for n in range(SCAN_LIMIT + CHUNK)))
    await append(played, Event(tag=EventTag.ADMIN, facts={"client": AGENCY}))
    wanted = Filter(agency=AGENCY)
    page = await played.core.reader.page(wanted, after=0, limit=10)
    assert (list(page.entries), page.at_end) == ([], False)
    assert page.reached >= SCAN_LIMIT
    assert len(await everything(played, wanted)) == 1


async def test_big_leaves_make_smaller_pages(played):
    await append(played, *(Event(tag=EventTag.ADMIN, facts={"blob": bytes(60_000)}) for _ in range(40)))
    page = await played.core.reader.page(Filter(types=frozenset({EventTag.ADMIN})), after=0, limit=100)
    assert 10 < len(page.entries) < 20
    assert len(await everything(played, Filter(types=frozenset({EventTag.ADMIN})), limit=100)) == 40


async def test_no_entry_names_a_person(played):
    _, sad = await played.approved(citizen_nif="")
    await played.sign(sad)
    told = repr(await everything(played))
    for personal in (NIF, "María", "Núñez", "Ibáñez", "612345678", "maria@example.org", PASSWORD, "Solicitud"):
        assert personal not in told


async def test_one_entry_by_its_id(played):
    some = (await everything(played))[-1]
    assert await played.core.reader.entry(some.leaf.id) == some
    with pytest.raises(NotFound):
        await played.core.reader.entry("0" * 26)


async def test_an_agency_is_named_by_id_and_by_the_name_citizens_saw(tmp_path):
    clock = FrozenClock()
    async with playing(tmp_path, clock=clock) as played:
        await played.activate(await played.register())
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        async with played.core.engine.begin() as connection:
            await played.core.callers.register(
                connection,
                client_id=AGENCY,
                name=AGENCY_NAME,
                public_key=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
                rights=[Right.SIGN.value],
                return_urls=["https://agency.example/done"],
            )
            grant = await played.core.callers.grant(connection, ClientId(AGENCY), "t-1", secrets.token_bytes)
        _, sad = await played.approved(grant=grant)
        await played.sign(sad)
        (line,) = await everything(played, Filter(agency=AGENCY, types=frozenset({EventTag.COMPLETE})))
        assert (line.agency, line.agency_name) == (AGENCY, AGENCY_NAME)
        assert line.leaf.time - clock.now() == timedelta(0)


@pytest.mark.parametrize("encoded", [b"", b"\xa0", b"\x01", b"\xff" * 40, b"\xa1\x61v\x01"])
def test_what_is_no_leaf(encoded):
    with pytest.raises(ValueError, match="not a leaf"):
        Leaf.decode(encoded)
