"""A citizen who logs in by PIN at the core."""

import re
from dataclasses import dataclass

from authn.envelope import Envelope, EnvelopeContext, EnvelopePurpose
from authn.otp.challenges import Begun
from authn.pin.login import GrantedLogin
from authn.sealing import Label, kdf, unseal
from tests.testkit.core import NIF, Played

EMAIL = "maria@example.org"
ACCESS_CODE = "GATO"
AUDIENCE = "web"
NONCE = "nonce-of-this-browser-1"
_PIN_LINE = re.compile(r"^@\S+ #([2-9B-DF-HJKMNP-TV-Z]{6})$", re.MULTILINE)


def pin_in(played: Played, challenge_id: str) -> str:
    """The PIN in the SMS of a challenge."""
    (found,) = _PIN_LINE.findall(played.phone.messages[challenge_id][1])
    return str(found)


@dataclass
class PINVisitor:
    """One browser at the PIN page."""

    played: Played
    audience: str = AUDIENCE
    nonce: str = NONCE

    async def begin_envelope(self, *, nif: str = NIF, access_code: str = ACCESS_CODE) -> Envelope:
        context = EnvelopeContext(purpose=EnvelopePurpose.PIN_BEGIN, subject=nif, client_id=self.audience)
        return self.played.browser.seal(await self.played.mint(), context, access_code.encode())

    async def begin(self, *, nif: str = NIF, email: str = EMAIL, access_code: str = ACCESS_CODE) -> Begun:
        envelope = await self.begin_envelope(nif=nif, access_code=access_code)
        return await self.played.core.pins.begin(nif, email, self.audience, self.nonce, envelope)

    async def pin(self, begun: Begun) -> str:
        """The PIN in the SMS."""
        await self.played.handed_over(begun.challenge_id)
        return pin_in(self.played, begun.challenge_id)

    async def complete_envelope(self, begun: Begun, pin: str, *, access_code: str = ACCESS_CODE) -> Envelope:
        context = EnvelopeContext(
            purpose=EnvelopePurpose.PIN_COMPLETE,
            subject=self.nonce,
            client_id=self.audience,
            challenge_id=begun.challenge_id,
        )
        return self.played.browser.seal(await self.played.mint(), context, (access_code + pin).encode())

    async def complete(self, begun: Begun, pin: str, *, access_code: str = ACCESS_CODE) -> str:
        """Access code and PIN; gives the identity token."""
        envelope = await self.complete_envelope(begun, pin, access_code=access_code)
        granted = await self.played.core.pins.complete(begun.challenge_id, self.audience, self.nonce, envelope)
        return self.opened(begun, granted)

    async def log_in(self) -> str:
        """All of it."""
        begun = await self.begin()
        return await self.complete(begun, await self.pin(begun))

    def opened(self, begun: Begun, granted: GrantedLogin) -> str:
        """The token inside the answer."""
        key = kdf(Label.ANSWER, self.played.browser.cs, begun.challenge_id)
        return unseal(Label.ANSWER, key, granted.sealed_token, begun.challenge_id).decode()
