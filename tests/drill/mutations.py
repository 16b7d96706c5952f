"""A thousand ways to change a published log, none of which the offline verifier may miss.

Files, checkpoint and database are changed (the database by whoever may take its triggers away, and everything is then
published anew by the real sequencer with the real key); each mutation is checked to change what the log says; judge is
``rubrica-verify full`` with checkpoints kept elsewhere. The same verifier must find nothing in logs of all sizes.
``python -m tests.drill.mutations --seed N [--out FILE]`` runs all of it, ``make test`` a sample.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cbor2

from audit.checkpoint import Checkpoint, CheckpointRefused, read_checkpoint
from audit.tiles import TILE_WIDTH, TileFolder, TileName, bundle, bundles_between, tiles_between, unbundle
from domain.ids import new_id
from hsm.keys import SigningKey
from hsm.vault import Vault
from rubrica_verify.report import Report, Verdict
from tests.testkit.sequencing import ORIGIN
from tests.testkit.vault import FakeVault
from tests.testkit.verifying import BEGUN_MS, a_history, a_log, commit, publish, rewrite, time_of, verified, write_key

COUNT = 1000
LARGEST = 600
BASES = 12
"""Logs that are mutated; each is published in steps, as it grew."""


@dataclass(frozen=True, slots=True)
class Base:
    """A sound log, and what an auditor keeps of it elsewhere."""

    folder: Path
    """Holds ``core.db`` and, for each size of ``sizes``, the published files as they were then."""
    sizes: tuple[int, ...]
    history: tuple[bytes, ...]
    vault: Vault
    spki: bytes

    @property
    def size(self) -> int:
        return self.sizes[-1]

    def files(self, size: int) -> Path:
        return self.folder / f"at-{size}"

    def verify(self, files: Path) -> Report:
        """As the auditor does."""
        kept = [word for size in self.sizes for word in ("--checkpoint", self.folder / f"kept-{size}")]
        return verified("full", files, "--key", self.folder / "log.pem", *kept)

    def verify_as_of(self, size: int) -> Report:
        """The log as it was with ``size`` leaves, against what was kept up to then."""
        earlier = replace(self, sizes=tuple(step for step in self.sizes if step <= size))
        return earlier.verify(self.files(size))

    def names(self, *, bundles: bool) -> list[TileName]:
        """Files that the newest checkpoint needs."""
        return list((bundles_between if bundles else tiles_between)(0, self.size))

    def path(self, files: Path, name: TileName) -> Path:
        """Where a needed file is: partial, or the full one that replaced it."""
        path = files / name.path
        return path if path.exists() else files / replace(name, width=TILE_WIDTH).path


async def a_base(folder: Path, source: random.Random, size: int) -> Base:
    """Make a log of this size in up to four steps."""
    sizes = tuple(sorted({*(source.randrange(1, size + 1) for _ in range(3)), size}))
    history = a_history(size, source)
    async with a_log(folder) as logging:
        before = 0
        for step in sizes:
            await commit(logging, history[before:step])
            before = step
            published = await publish(logging)
            shutil.copytree(published, folder / f"at-{step}")
            shutil.copy(published / "checkpoint", folder / f"kept-{step}")
        await write_key(logging.vault, folder / "log.pem")
        spki = await logging.vault.public_key(SigningKey.LOG)
        return Base(folder, sizes, tuple(history), logging.vault, spki)


def meaning(base: Base, files: Path) -> object:
    """What the files say: checkpoint, leaves and hashes; how they are spelled does not count."""
    try:
        checkpoint = read_checkpoint((files / "checkpoint").read_bytes(), ORIGIN, base.spki)
    except (CheckpointRefused, OSError):
        return "no checkpoint of this log"
    if checkpoint.size > LARGEST + 2 * TILE_WIDTH:
        return checkpoint
    folder, said = TileFolder(files), list[object]()
    for name in (*bundles_between(0, checkpoint.size), *tiles_between(0, checkpoint.size)):
        try:
            said.append(tuple(folder.read(name)))
        except (OSError, ValueError):
            said.append(("unreadable", name))
    # A bundle with a leaf too many at its end reads the same up to its width.
    widths = [len(base.path(files, name).read_bytes()) for name in base.names(bundles=True) if _is(base, files, name)]
    return checkpoint, tuple(said), tuple(widths)


def _is(base: Base, files: Path, name: TileName) -> bool:
    return base.path(files, name).is_file()


Mutation = Callable[[Base, Path, random.Random], Awaitable[None]]


def _parts(name: TileName, data: bytes) -> list[bytes]:
    return unbundle(data) if name.level is None else [data[at : at + 32] for at in range(0, len(data), 32)]


def _joined(name: TileName, parts: Sequence[bytes]) -> bytes:
    return bundle(parts) if name.level is None else b"".join(parts)


def _another(leaf: bytes, source: random.Random) -> bytes:
    """A leaf of good form that says something else."""
    content = cbor2.loads(leaf)
    match source.randrange(4):
        case 0:
            content["time"] += source.choice((-1, 1))
        case 1:
            content["tag"] = "COMPLETE" if content["tag"] != "COMPLETE" else "ABORTED"
        case 2:
            content["id"] = new_id(source.randbytes)
        case _:
            content["facts"] = {**content["facts"], "client": "another"}
    return cbor2.dumps(content, canonical=True)


def in_list(kind: str, parts: list[bytes], make: Callable[[bytes], bytes], source: random.Random) -> list[bytes]:
    """Change a list of leaves or hashes."""
    changed, at = list(parts), source.randrange(len(parts))
    match kind:
        case "delete":
            del changed[at]
        case "insert":
            changed.insert(at, make(parts[at]))
        case "swap":
            other = source.randrange(len(parts))
            changed[at], changed[other] = changed[other], changed[at]
        case "edit":
            changed[at] = make(parts[at])
        case "truncate":
            del changed[source.randrange(len(parts)) :]
    return changed


def in_files(kind: str, *, bundles: bool) -> Mutation:
    """Change one file of leaves or hashes, or two."""

    async def mutate(base: Base, files: Path, source: random.Random) -> None:
        name = source.choice(base.names(bundles=bundles))
        path = base.path(files, name)
        data = path.read_bytes()
        match kind, source.randrange(4):
            case "delete", 0:
                path.unlink()
            case "swap", 0:
                other = base.path(files, source.choice(base.names(bundles=bundles)))
                taken = other.read_bytes()
                other.write_bytes(data)
                path.write_bytes(taken)
            case "edit", 0 | 1:
                place = source.randrange(len(data))
                path.write_bytes(data[:place] + bytes([data[place] ^ 1 << source.randrange(8)]) + data[place + 1 :])
            case "truncate", 0 | 1:
                path.write_bytes(data[: source.randrange(len(data))])
            case _:

                def make(part: bytes) -> bytes:
                    return _another(part, source) if bundles else source.randbytes(32)

                path.write_bytes(_joined(name, in_list(kind, _parts(name, data), make, source)))

    return mutate


def in_database(kind: str) -> Mutation:
    """Change rows, then publish everything anew: files, checkpoint and signature are genuine, the history is not."""

    async def mutate(base: Base, files: Path, source: random.Random) -> None:
        leaves = in_list(kind, list(base.history), lambda leaf: _another(leaf, source), source)
        if source.random() < 0.5 and kind != "truncate":
            # And life goes on, so that no size tells.
            leaves += [_another(leaf, source) for leaf in source.sample(leaves, min(len(leaves), 5))]
        await _publish_anew(base, files, leaves)

    return mutate


async def _publish_anew(base: Base, files: Path, leaves: Sequence[bytes], vault: FakeVault | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=base.folder) as folder:
        shutil.copy(base.folder / "core.db", folder)
        async with a_log(Path(folder)) as logging:
            logging.vault = vault or base.vault  # type: ignore[assignment]
            await rewrite(logging, leaves)
            shutil.rmtree(files)
            published = await publish(logging)
            if published.exists():
                shutil.copytree(published, files)
            else:
                files.mkdir()


async def roll_back_files(base: Base, files: Path, source: random.Random) -> None:
    """Everything as it was at an earlier moment."""
    if len(base.sizes) > 1:
        shutil.rmtree(files)
        shutil.copytree(base.files(source.choice(base.sizes[:-1])), files)


async def roll_back_database(base: Base, files: Path, source: random.Random) -> None:
    """The database as it was at an earlier moment; then other things happened."""
    await _publish_anew(base, files, _otherwise(base, source.randrange(base.size), source.randrange(1, 40), source))


async def fork(base: Base, files: Path, source: random.Random) -> None:
    """Another history from some leaf on, as long as the known one or longer, signed by the same key."""
    same = source.randrange(base.size)
    more = base.size - same + source.choice((0, 0, 1, source.randrange(300)))
    await _publish_anew(base, files, _otherwise(base, same, more, source))


def _otherwise(base: Base, same: int, more: int, source: random.Random) -> list[bytes]:
    """The history up to some leaf, and then another one of good form."""
    begun = time_of(base.history[same - 1]) if same else BEGUN_MS
    return [*base.history[:same], *a_history(more, source, begun=begun)]


async def wrong_key_checkpoint(base: Base, files: Path, source: random.Random) -> None:
    """The same tree or another, signed by a key that is not the log's; half of them name the log's key."""
    genuine = read_checkpoint((files / "checkpoint").read_bytes(), ORIGIN, base.spki)
    said = replace(genuine, root=source.choice((genuine.root, source.randbytes(32))))
    vault = FakeVault(source.randbytes)
    signature = await vault.sign_with(SigningKey.LOG, said.digest())
    spki = source.choice((base.spki, await vault.public_key(SigningKey.LOG)))
    (files / "checkpoint").write_bytes(said.note(spki, signature))


async def wrong_key_log(base: Base, files: Path, source: random.Random) -> None:
    """Everything published anew by another key."""
    await _publish_anew(base, files, base.history, FakeVault(source.randbytes))


async def replayed_checkpoint(base: Base, files: Path, source: random.Random) -> None:
    """An older checkpoint of this log over all its files, or one that the same key signed for another log."""
    if len(base.sizes) > 1 and source.random() < 0.5:
        shutil.copy(base.folder / f"kept-{source.choice(base.sizes[:-1])}", files / "checkpoint")
    else:
        said = read_checkpoint((files / "checkpoint").read_bytes(), ORIGIN, base.spki)
        other = Checkpoint(source.choice(("firma.example/log/2026h1", "other.example/log")), said.size, said.root)
        signature = await base.vault.sign_with(SigningKey.LOG, other.digest())
        (files / "checkpoint").write_bytes(other.note(base.spki, signature))


async def delete_checkpoint(_: Base, files: Path, __: random.Random) -> None:
    """No checkpoint any more."""
    (files / "checkpoint").unlink()


async def edit_checkpoint(_: Base, files: Path, source: random.Random) -> None:
    """Another origin, size, root or signature under the old rest."""
    path = files / "checkpoint"
    origin, size, root, *rest = path.read_text().split("\n")
    match source.randrange(4):
        case 0:
            origin = f"{origin}x"
        case 1:
            size = str(max(0, int(size) + source.choice((-1, 1, 256))))
        case 2:
            root = base64.b64encode(source.randbytes(32)).decode()
        case _:
            data = bytearray(base64.b64decode(rest[1].split(" ")[2]))
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
            rest[1] = re.sub(r"[^ ]*$", base64.b64encode(data).decode(), rest[1])
    path.write_text("\n".join([origin, size, root, *rest]))


async def truncate_checkpoint(_: Base, files: Path, source: random.Random) -> None:
    """A note cut short."""
    path = files / "checkpoint"
    data = path.read_bytes()
    path.write_bytes(data[: source.randrange(len(data))])


async def insert_into_checkpoint(_: Base, files: Path, source: random.Random) -> None:
    """A line too many, above the signature."""
    path = files / "checkpoint"
    lines = path.read_text().split("\n")
    lines.insert(source.randrange(4), source.choice(("extension", "1", lines[2])))
    path.write_text("\n".join(lines))


async def swap_in_checkpoint(_: Base, files: Path, source: random.Random) -> None:
    """Two lines in each other's place."""
    path = files / "checkpoint"
    lines = path.read_text().split("\n")
    one, other = source.sample(range(3), 2)
    lines[one], lines[other] = lines[other], lines[one]
    path.write_text("\n".join(lines))


MUTATIONS: dict[tuple[str, str], Mutation] = {
    **{(kind, "bundles"): in_files(kind, bundles=True) for kind in ("delete", "insert", "swap", "edit", "truncate")},
    **{(kind, "tiles"): in_files(kind, bundles=False) for kind in ("delete", "insert", "swap", "edit", "truncate")},
    **{(kind, "database"): in_database(kind) for kind in ("delete", "insert", "swap", "edit", "truncate")},
    ("delete", "checkpoint"): delete_checkpoint,
    ("insert", "checkpoint"): insert_into_checkpoint,
    ("swap", "checkpoint"): swap_in_checkpoint,
    ("edit", "checkpoint"): edit_checkpoint,
    ("truncate", "checkpoint"): truncate_checkpoint,
    ("roll back", "files"): roll_back_files,
    ("roll back", "database"): roll_back_database,
    ("fork", "database"): fork,
    ("wrong key", "checkpoint"): wrong_key_checkpoint,
    ("wrong key", "database"): wrong_key_log,
    ("replayed checkpoint", "checkpoint"): replayed_checkpoint,
}


async def one_mutation(base: Base, mutation: Mutation, source: random.Random) -> Report | None:
    """Mutate a copy and judge it; ``None`` where what the log says stayed the same."""
    with tempfile.TemporaryDirectory(dir=base.folder) as folder:
        files = Path(folder) / "files"
        shutil.copytree(base.files(base.size), files)
        await mutation(base, files, source)
        if meaning(base, files) == meaning(base, base.files(base.size)):
            return None
        return base.verify(files)


async def mutations(
    folder: Path, seed: int, *, count: int, bases: int, only: Mapping[tuple[str, str], Mutation] = MUTATIONS
) -> dict[str, Any]:
    """So many mutations with a meaning, every class in turn; and sound logs of many sizes before."""
    source = random.Random(seed)  # noqa: S311 - the same seed, the same campaign
    made, alarms = [], 0
    for number in range(bases):
        base = await a_base(folder / str(number), source, source.randrange(1, LARGEST + 1))
        made.append(base)
        alarms += sum(base.verify_as_of(size).verdict is not Verdict.SOUND for size in base.sizes)
    ends: dict[str, Counter[str]] = {}
    faults: dict[str, Counter[str]] = {}
    without_meaning = done = 0
    classes = list(only.items())
    while done < count:
        (kind, target), mutation = classes[done % len(classes)]
        report = await one_mutation(source.choice(made), mutation, source)
        if report is None:
            without_meaning += 1
            continue
        ends.setdefault(f"{kind}: {target}", Counter())[report.verdict.name.lower()] += 1
        faults.setdefault(f"{kind}: {target}", Counter()).update(fault.value for fault in report.counts)
        done += 1
    missed = sum(number for found in ends.values() for name, number in found.items() if name != "tampered")
    return {
        "mutations": done,
        "detected": done - missed,
        "drawn again, for they changed nothing": without_meaning,
        "sound logs": sum(len(base.sizes) for base in made),
        "false alarms": alarms,
        "by class": {name: dict(found) for name, found in sorted(ends.items())},
        "told as": {name: dict(sorted(found.items())) for name, found in sorted(faults.items())},
        "held": not missed and not alarms,
    }


def main() -> int:
    """Run the campaign; 0 only if everything held."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.mutations", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, help="a file for the result, besides standard output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rubrica-drill-") as folder:
        found = asyncio.run(mutations(Path(folder), arguments.seed, count=COUNT, bases=BASES))
    result = {"drill": "mutations", "seed": arguments.seed, **found}
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out is not None:
        arguments.out.write_text(text)
    sys.stdout.write(text)
    return 0 if result["held"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
