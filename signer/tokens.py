"""What the core says about a finished approval: the result token for the agency, the receipt for the citizen."""

from collections.abc import Mapping, Sequence

from authn.challenge import sign_jws
from domain.clock import Clock, to_epoch_seconds
from domain.identity import ISSUER
from domain.items import Purpose
from hsm.keys import MACKey
from hsm.vault import Vault
from signer.approvals import Approval, Authorisation
from signer.credentials import Credential
from signer.requests import StagedRequest

RESULT_LIFE_SECONDS = 600


class Tokens:
    """Makes compact ES256 JWS by TOK."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock

    async def result(
        self, staged: StagedRequest, approval: Approval, rows: Sequence[Authorisation], credential: Credential
    ) -> str:
        """For the agency's return URL: states and digests, never files; the pseudonym is the agency's own."""
        now = to_epoch_seconds(self._clock.now())
        pid = await self._vault.mac(MACKey.PSEUDONYM, "agency", staged.client_id, approval.pid)
        claims: dict[str, object] = {
            "iss": ISSUER,
            "aud": staged.client_id,
            "request": staged.id,
            "nonce": staged.client_nonce,
            "state": "SIGNED",
            "items": _items(staged, rows),
            "certificate_serial": credential.serial,
            "pid": pid.hex(),
            "iat": now,
            "exp": now + RESULT_LIFE_SECONDS,
        }
        return await sign_jws(self._vault, {"typ": "result+jwt"}, claims)

    async def receipt(
        self, staged: StagedRequest, approval: Approval, rows: Sequence[Authorisation], credential: Credential
    ) -> str:
        """For keeping: what was approved and signed, when, with which certificate, and where it stands in the log."""
        claims: dict[str, object] = {
            "iss": ISSUER,
            "request": staged.id,
            "client": staged.client_id,
            "list_sha256": staged.list_sha256().hex(),
            "items": _items(staged, rows),
            "certificate_serial": credential.serial,
            "approved": to_epoch_seconds(approval.approved),
            "signed": max(to_epoch_seconds(row.signed) for row in rows if row.signed is not None),
            "leaves": [row.complete_id for row in rows if row.complete_id is not None],
            "iat": to_epoch_seconds(self._clock.now()),
        }
        return await sign_jws(self._vault, {"typ": "receipt+jwt"}, claims)


def _items(staged: StagedRequest, rows: Sequence[Authorisation]) -> list[Mapping[str, object]]:
    return [
        {
            "item": row.item,
            "state": "SIGNED" if row.signature is not None else row.state.value,
            "algorithm": staged.items[row.item].algorithm,
            "digests": [
                [digest.algorithm.value, digest.value.hex()] for digest in staged.items[row.item].document_digests
            ],
        }
        for row in rows
        if staged.items[row.item].purpose is Purpose.SIGN
    ]
