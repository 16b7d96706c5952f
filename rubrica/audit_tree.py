"""Brings the published tree to an auditor's folder: checkpoint, key, tiles and entry bundles, as the core has them."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from audit.checkpoint import read_checkpoint
from audit.client import AuditorClient
from audit.sequencer import CHECKPOINT_NAME
from audit.tiles import TILE_WIDTH, bundles_between, tiles_between, write_durably
from domain.errors import NotFound

KEY_NAME = "log.pem"


class KeptDiffers(Exception):
    """What was fetched before is not what the core shows now."""


async def fetch(client: AuditorClient, folder: Path) -> int:
    """Fetch what is missing, the checkpoint last: an interrupted run leaves the older one, whole.

    Args:
        client: Reaches the core.
        folder: New, or filled by an earlier run.

    Returns:
        How many leaves the checkpoint counts.

    Raises:
        KeptDiffers: The core's key is not the one that was kept.
        CheckpointRefused: The checkpoint is not signed by that key.
        OSError: The folder cannot be written.
    """
    log = await client.log()
    pem = load_der_public_key(log.spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = folder / KEY_NAME
    if not key.exists():
        write_durably(key, pem)
    elif key.read_bytes() != pem:
        raise KeptDiffers(f"{key} is another key than the core's: keep both, and ask why")
    if not log.checkpoint:
        return 0
    size = read_checkpoint(log.checkpoint, log.origin, log.spki).size
    for name in chain(bundles_between(0, size), tiles_between(0, size)):
        full = replace(name, width=TILE_WIDTH)
        if (folder / name.path).exists() or (folder / full.path).exists():
            continue
        try:
            write_durably(folder / name.path, await client.file(name.path))
        except NotFound:
            # It has been filled meanwhile.
            write_durably(folder / full.path, await client.file(full.path))
    write_durably(folder / CHECKPOINT_NAME, log.checkpoint)
    return size
