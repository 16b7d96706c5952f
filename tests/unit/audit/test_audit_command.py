"""``rubrica audit``: over the core's own socket for auditors, as an auditor types it."""

import csv
import hashlib
import io
import json

import cbor2
import grpc
import pytest

from audit.client import AuditorClient
from audit.entries import Filter
from audit.log import Event, EventTag, Log
from authn.client import CoreFault, call
from authn.proto import authn_pb2, authn_pb2_grpc
from domain.errors import NotFound, RequestError
from rubrica.audit_files import COLUMNS, exporting
from tests.testkit.auditor import Auditor, auditing
from tests.testkit.core import playing


@pytest.fixture
async def played(tmp_path):
    async with playing(tmp_path) as played:
        await played.activate(await played.register())
        _, sad = await played.approved()
        await played.sign(sad)
        yield played


@pytest.fixture
async def auditor(tmp_path, played):
    async with auditing(tmp_path / "s", played) as auditor:
        yield auditor


async def test_the_auditors_socket_answers_auditors_only(auditor, tmp_path):
    assert (await auditor.client.page(Filter(), after=0, limit=1)).entries
    async with grpc.aio.insecure_channel(f"unix:{auditor.socket}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await authn_pb2_grpc.RegistryStub(channel).TokenKey(authn_pb2.TokenKeyRequest())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for other in ("edge", "gate", "operator"):
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 's' / other / 'core.sock'}") as channel:
            with pytest.raises(CoreFault):
                await AuditorClient(channel, call).page(Filter(), after=0, limit=1)


async def test_wrong_filters_are_refused(auditor):
    with pytest.raises(RequestError):
        await auditor.client.page(Filter(pid=b"short"), after=0, limit=1)
    with pytest.raises(RequestError):
        await auditor.client.page(Filter(), after=-1, limit=1)
    with pytest.raises(NotFound):
        await auditor.client.entry("0" * 26)


async def test_list_in_json_is_the_log_in_order(auditor, played):
    result = await auditor.command("list", "--format", "json", "--limit", "1000")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [entry["id"] for entry in told["entries"]] == [leaf["id"] for leaf in await played.leaves()]
    assert told["at_end"] is True
    assert all(tuple(entry) == COLUMNS for entry in told["entries"])
    (signature,) = [entry for entry in told["entries"] if entry["type"] == "COMPLETE"]
    assert signature["proved_by"] == "password+sms"
    assert signature["digests"] == ["sha256:" + hashlib.sha256(b"Solicitud 1").hexdigest()]
    assert signature["evidence"] == "attested"


async def test_pages_by_hand_give_the_same_as_one(auditor):
    whole = json.loads((await auditor.command("list", "--format", "json", "--limit", "1000")).stdout)["entries"]
    found, after = [], 0
    while True:
        result = await auditor.command("list", "--format", "json", "--limit", "2", "--after", str(after))
        page = json.loads(result.stdout)
        found += page["entries"]
        after = page["reached"]
        if page["at_end"]:
            break
        assert f"--after {after}" in result.stderr
    assert found == whole


async def test_list_in_csv_and_text(auditor):
    result = await auditor.command("list", "--format", "csv", "--type", "COMPLETE")
    heading, row = list(csv.reader(io.StringIO(result.stdout)))
    assert tuple(heading) == COLUMNS
    assert dict(zip(heading, row, strict=True))["proved_by"] == "password+sms"
    text = (await auditor.command("list", "--type", "COMPLETE")).stdout
    assert "proved by password+sms" in text
    assert hashlib.sha256(b"Solicitud 1").hexdigest() in text


async def test_what_a_spreadsheet_would_run_is_not_run(auditor, played):
    async with played.core.engine.begin() as connection:
        await played.core.log.append(connection, Event(tag=EventTag.ADMIN, facts={"client": "=HYPERLINK(1)"}))
    result = await auditor.command("list", "--format", "csv", "--agency", "=HYPERLINK(1)")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["agency"] == "'=HYPERLINK(1)"
    assert not any(cell.startswith("=") for cell in row.values())


async def test_show_gives_the_leaf_itself(auditor, played):
    leaf = (await played.leaves("COMPLETE"))[0]
    result = await auditor.command("show", str(leaf["id"]))
    assert cbor2.loads(bytes.fromhex(json.loads(result.stdout)["leaf"])) == leaf
    missing = await auditor.command("show", "0" * 26)
    assert missing.exit_code == 1
    assert "not_found" in missing.stderr


async def test_show_takes_what_a_list_prints(auditor):
    lines = [line.split() for line in (await auditor.command("list")).stdout.splitlines()]
    assert len(lines) > 4
    whole = [json.loads((await auditor.command("show", leaf_id)).stdout) for _, leaf_id, *_ in lines[:4]]
    for (position, leaf_id, *_), shown in zip(lines, whole, strict=False):
        assert (str(shown["position"]), shown["id"]) == (position, leaf_id)
        for name in (position, leaf_id[:20], leaf_id[:20].lower()):
            assert json.loads((await auditor.command("show", name)).stdout) == shown
    for nobody in ("0", str(len(lines) + 1), "99999999999", lines[0][1][:-1] + "U", ""):
        missing = await auditor.command("show", nobody)
        assert (missing.exit_code, missing.stdout, "not_found" in missing.stderr) == (1, "", True), nobody


async def test_a_beginning_of_several_is_told_as_such(auditor, played):
    drawn = iter(bytes([255] * 15 + [last]) for last in (0, 255))
    alike = Log(played.core.clock, lambda size: next(drawn)[:size])
    async with played.core.engine.begin() as connection:
        first, second = await alike.append(connection, Event(tag=EventTag.ADMIN), Event(tag=EventTag.ADMIN))
    for name in (first[:10], first[:-2]):
        result = await auditor.command("show", name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"{first} and {second}" in result.stderr
    for leaf_id in (first, second):
        assert json.loads((await auditor.command("show", leaf_id)).stdout)["id"] == leaf_id


async def test_a_citizen_is_known_by_the_digits_that_a_list_prints(auditor, played):
    (line,) = (await auditor.command("list", "--type", "COMPLETE")).stdout.splitlines()
    digits = line[line.index("citizen ") + 8 :].split()[0]
    pid = (await played.leaves("COMPLETE"))[0]["pid"]
    assert pid.hex().startswith(digits)
    assert len(digits) == 12
    whole = (await auditor.command("list", "--citizen", pid.hex())).stdout
    assert line in whole.splitlines()
    for part in (digits, digits[:11].upper()):
        assert (await auditor.command("list", "--citizen", part)).stdout == whole
    # Another one whose digits begin alike.
    twin = pid[:6] + bytes(26)
    async with played.core.engine.begin() as connection:
        await played.core.log.append(connection, Event(tag=EventTag.ADMIN, pid=twin))
    result = await auditor.command("list", "--citizen", digits)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{pid.hex()} and {twin.hex()}" in result.stderr
    assert (await auditor.command("list", "--citizen", pid.hex())).stdout == whole
    assert (await auditor.command("list", "--citizen", pid.hex()[:20])).stdout == whole


@pytest.mark.parametrize(
    "arguments",
    [("--type", "NOTHING"), ("--result", "good"), ("--citizen", "zz"), ("--citizen", "00"), ("--from", "yesterday")],
)
async def test_typing_errors_are_told(auditor, arguments):
    result = await auditor.command("list", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("rubrica: ")


async def test_an_export_holds_every_leaf_as_it_is_with_counts(auditor, played, tmp_path):
    folder = tmp_path / "export"
    result = await auditor.command("export", str(folder))
    assert result.exit_code == 0, result.output
    leaves = await played.leaves()
    lines = [line.split(" ") for line in (folder / "leaves.hex").read_text().splitlines()]
    assert [cbor2.loads(bytes.fromhex(encoded)) for _, _, encoded in lines] == leaves
    assert [leaf_id for _, leaf_id, _ in lines] == [leaf["id"] for leaf in leaves]
    told = json.loads((folder / "export.json").read_text())
    assert told["entries"] == len(leaves)
    assert sum(told["by_type"].values()) == sum(told["by_result"].values()) == len(leaves)
    assert told["by_type"]["COMPLETE"] == 1
    assert len(json.loads((folder / "entries.json").read_text())) == len(leaves)
    with (folder / "entries.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(leaves)
    for name, described in told["files"].items():
        content = (folder / name).read_bytes()
        assert described == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert sorted(told["files"]) == ["entries.csv", "entries.json", "leaves.hex"]


async def test_an_export_takes_filters_and_may_be_empty(auditor, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    result = await auditor.command("export", str(folder), "--type", "LOCK")
    assert result.exit_code == 0, result.output
    told = json.loads((folder / "export.json").read_text())
    assert (told["entries"], told["first_position"], told["filter"]["types"]) == (0, None, ["LOCK"])
    assert json.loads((folder / "entries.json").read_text()) == []


async def test_an_export_never_touches_what_is_there(auditor, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "mine").write_text("kept")
    result = await auditor.command("export", str(folder))
    assert result.exit_code == 1
    assert "not an empty folder" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["mine"]
    (tmp_path / "file").write_text("kept")
    assert (await auditor.command("export", str(tmp_path / "file"))).exit_code == 1


def test_an_export_that_breaks_leaves_nothing(tmp_path, played):
    folder = tmp_path / "out" / "export"
    with pytest.raises(RuntimeError), exporting(folder, Filter(), played.core.clock.now()):
        raise RuntimeError("the core went away")
    assert list(folder.parent.iterdir()) == []


async def test_nobody_there_is_told(tmp_path):
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'none'}") as channel:
        result = await Auditor(AuditorClient(channel, call), socket=tmp_path / "none").command("list")
    assert result.exit_code == 1
    assert "there is no socket" in result.stderr
