"""The example of an agency's site, as ``rubrica up`` runs it: its key, its place in the register, its environment."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from authn.client import RegistryClient
from domain.errors import AlreadyRegistered
from rubrica.state import write_atomically

PROGRAM = Path(__file__).resolve().parents[1] / "examples" / "agency" / "agency_site.py"


async def enter(operator_socket: Path, folder: Path, url: str) -> Mapping[str, str]:
    """Have a key, enter it into the register, and give what the site needs to know.

    Args:
        operator_socket: Of the core.
        folder: Where the key lies; made if it is not there.
        url: The site's own address. It is part of what is registered, so another address is another client.

    Returns:
        Its environment, without the service's address and key.
    """
    client_id = f"ejemplo-{url.rpartition(':')[2]}"
    path = folder / f"{client_id}.pem"
    public_key = await asyncio.to_thread(_public_key, path)
    async with grpc.aio.insecure_channel(f"unix:{operator_socket}") as channel:
        # An earlier run over the same state has entered this key and address.
        with contextlib.suppress(AlreadyRegistered):
            await RegistryClient(channel).register_client(
                client_id=client_id,
                name="Sede de ejemplo",
                public_key=public_key,
                rights=["sign", "name_citizen"],
                return_urls=[f"{url}/vuelta"],
            )
    return {"AGENCY_URL": url, "AGENCY_CLIENT_ID": client_id, "AGENCY_KEY_FILE": str(path)}


def _public_key(path: Path) -> bytes:
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(path, pem.decode())
    key = load_pem_private_key(path.read_bytes(), password=None)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
