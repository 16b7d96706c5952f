"""Style sheets and scripts under names that hold their digest, so that they may be cached for ever and never mixed up.

A module that imports another one names it as ``./other.js``; here that becomes the hashed name, and a page that loads a
module gets the digests of all modules behind it (Subresource Integrity, by ``modulepreload``).
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter, Response

from domain.errors import NotFound

PREFIX = "/static"
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
)
_IMPORT = re.compile(r'(?<=from "\./)[a-z0-9-]+\.js(?=")')
_NAME_DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as browsers get it."""

    name: str
    """With its digest."""
    body: bytes
    media_type: str
    imports: tuple["Asset", ...]
    """All modules behind it, the deepest first."""

    @property
    def url(self) -> str:
        """Path at its origin."""
        return f"{PREFIX}/{self.name}"

    @property
    def integrity(self) -> str:
        """For the attribute of the same name."""
        return f"sha384-{b64encode(hashlib.sha384(self.body).digest()).decode()}"


class Assets:
    """All files of some folders, read once."""

    def __init__(self, *folders: Path) -> None:
        """Read and hash them.

        Raises:
            OSError: A file cannot be read.
            KeyError: A module imports one that is not there.
        """
        self._sources = {path.name: path for folder in folders for path in sorted(folder.iterdir())}
        self._assets: dict[str, Asset] = {}
        for name in self._sources:
            self._load(name)
        self._served = {asset.name: asset for asset in self._assets.values()}

    def __getitem__(self, name: str) -> Asset:
        """The asset whose source has this name."""
        return self._assets[name]

    def router(self) -> APIRouter:
        """Serves them."""
        router = APIRouter()

        @router.get(f"{PREFIX}/{{name}}", include_in_schema=False)
        async def asset(name: str) -> Response:
            """One file, unchanged for ever."""
            found = self._served.get(name)
            if found is None:
                raise NotFound("no such file")
            headers = {"Cache-Control": "public, max-age=31536000, immutable"}
            return Response(found.body, media_type=found.media_type, headers=headers)

        return router

    def _load(self, name: str) -> Asset:
        if name in self._assets:
            return self._assets[name]
        source = self._sources[name]
        text = source.read_text(encoding="utf-8")
        imported = [self._load(other) for other in dict.fromkeys(_IMPORT.findall(text))]
        text = _IMPORT.sub(lambda found: self._assets[found[0]].name, text)
        body = text.encode()
        digest = hashlib.sha256(body).hexdigest()[:_NAME_DIGEST_CHARACTERS]
        behind = {each.name: each for one in imported for each in (*one.imports, one)}
        self._assets[name] = Asset(
            name=f"{source.stem}.{digest}{source.suffix}",
            body=body,
            media_type=MEDIA_TYPES[source.suffix],
            imports=tuple(behind.values()),
        )
        return self._assets[name]
