"""Where a token is and how to log in to it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Names one token; holds no secret."""

    module: Path
    """The vendor's PKCS#11 library."""
    token_label: str
    """CKA label of the token, at most 32 bytes of UTF-8."""
    pin_file: Path
    """The user's PIN in a file that only its owner can read (0400)."""
    conf_path: Path | None = None
    """SoftHSM's own configuration (``SOFTHSM2_CONF``); ``None`` with other tokens."""

    def to_json(self) -> str:
        """As handed to a child process on its command line."""
        return json.dumps({name: None if value is None else str(value) for name, value in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Undo ``to_json``."""
        fields = json.loads(text)
        conf_path = fields["conf_path"]
        return cls(
            module=Path(fields["module"]),
            token_label=fields["token_label"],
            pin_file=Path(fields["pin_file"]),
            conf_path=None if conf_path is None else Path(conf_path),
        )

    def child_environment(self) -> dict[str, str]:
        """The environment of a process that talks to this token: it finds us, and SoftHSM its configuration."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        if self.conf_path is not None:
            environment["SOFTHSM2_CONF"] = str(self.conf_path)
        return environment
