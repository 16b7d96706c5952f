"""gRPC servicers of authn: protobuf in and out, nothing decided here."""

from datetime import datetime
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy.ext.asyncio import AsyncEngine

from authn.agencies import CallerRegister, ClientState, RegisteredKey
from authn.area import Area
from authn.assertions import ClientAuthenticator
from authn.challenge import Challenges
from authn.envelope import Envelope, EnvelopePurpose
from authn.otp.challenges import Begun
from authn.otp.grants import GrantedToken, Grants
from authn.otp.rows import OTPPurpose
from authn.password.change import PasswordChange
from authn.password.unlocking import Unlocking
from authn.pin.login import PINLogin
from authn.proto import authn_pb2, authn_pb2_grpc
from authn.registration.activation import PasswordActivation
from authn.registration.register import PhoneChange
from authn.sessions import Sessions
from domain.clock import to_epoch_seconds
from domain.errors import MalformedRequest
from domain.ids import ClientId
from hsm.keys import SigningKey
from hsm.vault import Vault


def envelope_of(message: Any) -> Envelope:
    """An envelope as it came over the wire."""
    return Envelope(message.sap_id, message.nonce, message.enc, message.ciphertext)


class FactorsServicer(authn_pb2_grpc.FactorsServicer):
    """For the gate."""

    def __init__(
        self,
        challenges: Challenges,
        activation: PasswordActivation,
        change: PasswordChange,
        grants: Grants,
        pins: PINLogin,
    ) -> None:
        self._challenges = challenges
        self._activation = activation
        self._change = change
        self._grants = grants
        self._pins = pins

    async def Challenge(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A fresh challenge."""
        del request, context
        challenge = await self._challenges.mint()
        return authn_pb2.ChallengeAnswer(
            nonce=challenge.nonce,
            expires=to_epoch_seconds(challenge.expires),
            sap_id=challenge.sap_id,
            sap_public_key=challenge.sap_public_key,
            statement=challenge.statement,
        )

    async def ActivationBegin(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """NIF, e-mail and activation code."""
        del context
        return _otp(await self._activation.begin(request.nif, request.email, envelope_of(request.envelope)))

    async def ActivationComplete(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The SMS code."""
        del context
        return _token(
            await self._grants.complete(
                OTPPurpose.ACTIVATION,
                EnvelopePurpose.ACTIVATION_COMPLETE,
                request.challenge_id,
                envelope_of(request.envelope),
            )
        )

    async def ActivationSetPassword(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The password."""
        del context
        await self._activation.set_password(request.challenge_id, envelope_of(request.envelope))
        return authn_pb2.SetPasswordAnswer()

    async def PasswordChangeBegin(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """NIF and old password."""
        del context
        return _otp(await self._change.begin(request.nif, envelope_of(request.envelope)))

    async def PasswordChangeComplete(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The SMS code."""
        del context
        return _token(
            await self._grants.complete(
                OTPPurpose.PASSWORD_CHANGE,
                EnvelopePurpose.PASSWORD_CHANGE_COMPLETE,
                request.challenge_id,
                envelope_of(request.envelope),
            )
        )

    async def PasswordChangeSet(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The new password."""
        del context
        await self._change.set_password(request.challenge_id, envelope_of(request.envelope))
        return authn_pb2.SetPasswordAnswer()

    async def PinBegin(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """NIF, e-mail and access code."""
        del context
        return _otp(
            await self._pins.begin(
                request.nif, request.email, request.audience, request.nonce, envelope_of(request.envelope)
            )
        )

    async def PinComplete(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Access code and PIN."""
        del context
        granted = await self._pins.complete(
            request.challenge_id, request.audience, request.nonce, envelope_of(request.envelope)
        )
        return authn_pb2.PinCompleteAnswer(
            sealed_token=granted.sealed_token,
            expires=to_epoch_seconds(granted.expires),
            return_url=granted.return_url,
        )


class CallersServicer(authn_pb2_grpc.CallersServicer):
    """For the edge."""

    def __init__(self, authenticator: ClientAuthenticator) -> None:
        self._authenticator = authenticator

    async def AuthenticateClient(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Who a client is, and a grant for one transaction."""
        del context
        client = await self._authenticator.authenticate(request.assertion, request.transaction_id)
        return authn_pb2.AuthenticateClientAnswer(
            client_id=client.id,
            client_name=client.name,
            rights=sorted(client.rights),
            grant=client.grant,
            return_urls=client.return_urls,
        )


class AreaServicer(authn_pb2_grpc.AreaServicer):
    """For the edge's pages of a citizen who logged in."""

    def __init__(self, area: Area, sessions: Sessions) -> None:
        self._area = area
        self._sessions = sessions

    async def TokenKey(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The public key TOK."""
        del request, context
        key = await self._sessions.token_key()
        return authn_pb2.TokenKeyAnswer(public_key=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    async def EnterArea(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """A token for a key."""
        del context
        opened = await self._area.enter(request.token, request.nonce)
        return authn_pb2.EnterAreaAnswer(key=opened.key, expires=to_epoch_seconds(opened.expires))

    async def ShowArea(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """What the citizen may see."""
        del context
        shown = await self._area.show(request.key)
        return authn_pb2.ShowAreaAnswer(
            name=shown.name,
            masked_nif=shown.masked_nif,
            level=shown.level.value,
            loa=shown.loa.value,
            authenticated=to_epoch_seconds(shown.authenticated),
            password=shown.password.value,
            blocked_until=_seconds(shown.blocked_until),
            certificates=[
                authn_pb2.HeldCertificate(serial=one.serial, state=one.state, not_after=_seconds(one.not_after))
                for one in shown.certificates
            ],
            uses=[
                authn_pb2.KeyUse(
                    time=to_epoch_seconds(use.time), agency=use.agency, documents=use.documents, titles=use.titles
                )
                for use in shown.uses
            ],
        )

    async def LeaveArea(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The login ends."""
        del context
        await self._area.leave(request.key)
        return authn_pb2.LeaveAreaAnswer()


class RegistryServicer(authn_pb2_grpc.RegistryServicer):
    """For the operator."""

    def __init__(
        self,
        engine: AsyncEngine,
        phone_change: PhoneChange,
        unlocking: Unlocking,
        callers: CallerRegister,
        vault: Vault,
    ) -> None:
        self._engine = engine
        self._phone_change = phone_change
        self._unlocking = unlocking
        self._callers = callers
        self._vault = vault

    async def ChangePhone(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Give a citizen another phone."""
        del context
        await self._phone_change.change(nif=request.nif, phone=request.phone)
        return authn_pb2.ChangePhoneAnswer()

    async def Unlock(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """End a block."""
        del context
        await self._unlocking.unlock(request.nif)
        return authn_pb2.UnlockAnswer()

    async def RegisterClient(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Enter an agency."""
        del context
        async with self._engine.begin() as connection:
            await self._callers.register(
                connection,
                client_id=request.client_id,
                name=request.name,
                rights=list(request.rights),
                return_urls=list(request.return_urls),
                public_key=request.public_key,
                certificate_chain=list(request.certificate_chain),
            )
        return authn_pb2.RegisterClientAnswer()

    async def SetClientState(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Block an agency, or listen to it again."""
        del context
        try:
            state = ClientState(request.state)
        except ValueError:
            raise MalformedRequest(f"states are {', '.join(ClientState)}") from None
        async with self._engine.begin() as connection:
            await self._callers.set_state(connection, ClientId(request.client_id), state)
        return authn_pb2.SetClientStateAnswer()

    async def ListClients(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """All agencies."""
        del request, context
        async with self._engine.connect() as connection:
            return authn_pb2.ListClientsAnswer(
                clients=[
                    authn_pb2.ListedClient(
                        client_id=listed.caller.id,
                        name=listed.caller.name,
                        state=listed.state.value,
                        proof="key" if isinstance(listed.credential, RegisteredKey) else "certificate",
                        rights=sorted(listed.caller.rights),
                    )
                    for listed in await self._callers.all(connection)
                ]
            )

    async def TokenKey(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The public key TOK, for clients to pin."""
        del request, context
        return authn_pb2.TokenKeyAnswer(public_key=await self._vault.public_key(SigningKey.TOKENS))


def _seconds(moment: datetime | None) -> int:
    return to_epoch_seconds(moment) if moment is not None else 0


def _otp(begun: Begun) -> Any:
    return authn_pb2.OTPAnswer(
        challenge_id=begun.challenge_id,
        expires=to_epoch_seconds(begun.expires),
        reference=begun.reference,
        tries=begun.tries,
    )


def _token(granted: GrantedToken) -> Any:
    return authn_pb2.TokenAnswer(sealed_token=granted.sealed_token, expires=to_epoch_seconds(granted.expires))
