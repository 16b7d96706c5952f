"""Tiles: their names, that they are written once, and that a tree read from them is the tree."""

import pytest

from audit.merkle import Frontier, includes, inclusion_proof, leaf_hash, root_of
from audit.tiles import (
    TILE_WIDTH,
    TileConflict,
    TileFolder,
    TileName,
    bundle,
    bundles_between,
    tiles_between,
    unbundle,
)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (TileName(0, 0), "tile/0/000"),
        (TileName(0, 5, 112), "tile/0/005.p/112"),
        (TileName(2, 1234067), "tile/2/x001/x234/067"),
        (TileName(None, 1000, 1), "tile/entries/x001/000.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(name, path):
    assert name.path == path
    assert TileName.parse(path) == name


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/00/000", "tile/0/x000/000",
        "tile/64/000", "tile/0/001/000", "tile/../000", "checkpoint", "tile/0/000.p/300", "tile/entries/x1/000",
    ],
)  # fmt: skip
def test_other_paths_are_none(path):
    with pytest.raises(ValueError, match="no tile's path"):
        TileName.parse(path)


@pytest.mark.parametrize("steps", [[1, 2, 255, 256, 257, 600], [70_000], [300, 66_000], [65_536, 65_537]])
def test_a_tree_grown_in_steps_is_read_back_from_its_tiles(tmp_path, steps):
    folder, frontier, old = TileFolder(tmp_path), Frontier(), 0
    levels: dict[int, list[bytes]] = {}
    for size in steps:
        for number in range(old, size):
            for level, _, hashed in frontier.append(leaf_hash(b"%d" % number)):
                if level % 8 == 0:
                    levels.setdefault(level // 8, []).append(hashed)
        for name in tiles_between(old, size):
            assert name.level is not None
            start = name.index * TILE_WIDTH
            folder.write(name, levels[name.level][start : start + name.width])
        for name in bundles_between(old, size):
            start = name.index * TILE_WIDTH
            folder.write(name, [b"%d" % number for number in range(start, start + name.width)])
        read = folder.reader(size)
        assert root_of(read, size) == frontier.root()
        for index in (0, size // 2, size - 1):
            entries = folder.read(TileName(None, index // 256, min(256, size - index // 256 * 256)))
            assert entries[index % 256] == b"%d" % index
            assert includes(
                leaf_hash(entries[index % 256]), index, size, inclusion_proof(read, index, size), frontier.root()
            )
        old = size


def test_a_tile_is_written_once(tmp_path):
    folder = TileFolder(tmp_path)
    folder.write(TileName(0, 0, 1), [bytes(32)])
    folder.write(TileName(0, 0, 1), [bytes(32)])
    with pytest.raises(TileConflict, match=r"tile/0/000\.p/1"):
        folder.write(TileName(0, 0, 1), [b"\1" * 32])
    assert folder.read(TileName(0, 0, 1)) == [bytes(32)]


@pytest.mark.parametrize("level", [None, 0])
def test_partial_files_go_with_the_full_one_and_are_read_from_it(tmp_path, level):
    folder = TileFolder(tmp_path)
    parts = [bytes([number]) * 32 for number in range(256)]
    for width in (1, 200, 256):
        folder.write(TileName(level, 0, width), parts[:width])
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["000"]
    assert folder.read(TileName(level, 0, 7)) == parts[:7]
    folder.write(TileName(level, 0, 9), parts[:9])
    with pytest.raises(TileConflict):
        folder.write(TileName(level, 0, 9), parts[1:10])


def test_a_short_tile_is_not_read(tmp_path):
    folder = TileFolder(tmp_path)
    folder.write(TileName(0, 0, 2), [bytes(32)])
    with pytest.raises(ValueError, match="has not 2 parts"):
        folder.reader(2)(1, 0)
    with pytest.raises(FileNotFoundError):
        folder.reader(3)(0, 2)
    (tmp_path / "tile/0/000.p/2").write_bytes(bytes(63))
    with pytest.raises(ValueError, match="cut short"):
        folder.reader(2)(1, 0)


def test_bundles_hold_leaves_of_every_length():
    leaves = [b"", b"a", b"b" * 65_535]
    assert unbundle(bundle(leaves)) == leaves
    with pytest.raises(ValueError, match="65 535"):
        bundle([b"c" * 65_536])
    for cut in (1, 2, 3, 4, 65_000):
        with pytest.raises(ValueError, match="cut short"):
            unbundle(bundle(leaves[1:])[:-cut] if cut > 2 else bundle(leaves[1:]) + b"\0\1"[:cut])
