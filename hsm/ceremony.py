"""Key ceremonies: make the keys of a token, or look whether they are as they must be.

Each runs in a process of its own, so that a caller with threads never loads a PKCS#11 module.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum

from hsm.errors import HSMError, from_child
from hsm.keys import Inventory
from hsm.settings import TokenSettings

CEREMONY_SECONDS = 120


class TokenState(StrEnum):
    """What a look at a token found."""

    ABSENT = "absent"
    """No token of that label, or it has no user PIN yet."""
    EMPTY = "empty"
    """A token without a single object."""
    REFUSED = "refused"
    """Keys are missing, foreign or not as they must be; ``findings`` says which."""
    COMPLETE = "complete"
    """Every key is there with every attribute right, and nothing else."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """The outcome of a ceremony or of a look."""

    token_label: str
    inventory: Inventory
    state: TokenState
    keys: tuple[str, ...]
    """Labels of the inventory, whether they are there or not."""
    findings: tuple[str, ...]
    """One plain sentence for each thing that is off."""
    made: bool = False
    """Whether this ceremony made the keys; false where they were complete before."""

    def to_json(self) -> str:
        """As handed from the ceremony's process."""
        return json.dumps([self.token_label, self.inventory, self.state, self.keys, self.findings, self.made])

    @classmethod
    def from_json(cls, text: str) -> "TokenReport":
        """Undo ``to_json``."""
        label, inventory, state, keys, findings, made = json.loads(text)
        return cls(label, Inventory(inventory), TokenState(state), tuple(keys), tuple(findings), made)


def initialise_token(settings: TokenSettings) -> bool:
    """Make an empty SoftHSM token: configuration, PINs of 128 random bits in files of mode 0400, no keys.

    The tokens' folder is ``tokens`` beside ``settings.conf_path``; the security officer's PIN lies beside the user's,
    with the suffix ``.so``. What an interrupted run left behind is taken up again. Tokens of other makers are
    initialised with their makers' tools.

    Returns:
        Whether anything was made; false where the token was there.

    Raises:
        HSMError: ``settings`` names no SoftHSM configuration, or the token cannot be made.
    """
    return bool(json.loads(_apart("initialise-token", settings, Inventory.CORE)))


def initialise(settings: TokenSettings, inventory: Inventory) -> TokenReport:
    """The key ceremony: make every key of the inventory on an empty token, read everything back.

    A token that is complete and right is left alone. One that was made by an earlier version, and is right but for the
    keys that came later (``hsm.inventory.ADDED_LATER``), is given exactly those.

    Raises:
        InventoryMismatch: The token has keys already and they are not the whole inventory; the text says what to do.
        HSMError: The token cannot be reached or refused.
    """
    return TokenReport.from_json(_apart("initialise", settings, inventory))


def status(settings: TokenSettings, inventory: Inventory) -> TokenReport:
    """Look at a token without changing it.

    Raises:
        PINRefused: The token refused the PIN.
        HSMError: The module cannot be loaded.
    """
    return TokenReport.from_json(_apart("status", settings, inventory))


def _apart(action: str, settings: TokenSettings, inventory: Inventory) -> str:
    child = subprocess.run(  # noqa: S603 - our own interpreter and module, and no shell
        [sys.executable, "-P", "-m", "hsm.keymaking", action, settings.to_json(), inventory],
        env=settings.child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CEREMONY_SECONDS,
        check=False,
    )
    try:
        outcome, *words = json.loads(child.stdout)
    except ValueError:
        raise HSMError(f"the ceremony's process ended with {child.returncode}: {child.stderr.strip()[-500:]}") from None
    if outcome == "done":
        return str(words[0])
    raise from_child(*words)
