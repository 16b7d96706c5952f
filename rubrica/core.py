"""The signing core's process: everything that decides, wired once, behind one Unix socket per caller class."""

import asyncio
import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from sqlalchemy.ext.asyncio import AsyncEngine

import audit.log
import authn.tables
import signer.tables
from audit.lag import Lag, LagLimits
from audit.log import Log
from audit.published import Published
from audit.reading import LogReader
from audit.sequencer import Memory, Sequencer
from authn.agencies import WEB, Caller, CallerRegister, Right
from authn.area import Area
from authn.assertions import ClientAuthenticator
from authn.challenge import Challenges
from authn.columns import ColumnCipher
from authn.messages.outbox import Outbox, OutboxSender
from authn.messages.sms import HTTPGatewayConfig, HTTPSMSGateway, SMSGateway
from authn.messages.texts import SMSTexts
from authn.otp.budget import CodeBudget, rules
from authn.otp.challenges import OTPChallenges
from authn.otp.grants import Grants
from authn.otp.notices import CodeBlockNotices
from authn.otp.sending import CodeSender
from authn.password.change import PasswordChange
from authn.password.factor import PasswordFactors
from authn.password.notices import BlockNotices
from authn.password.stretch import Stretcher, StretchParameters
from authn.password.unlocking import Unlocking
from authn.pin.login import PINLogin
from authn.registration.activation import PasswordActivation, SealedActivationCodes
from authn.registration.citizens import CitizenRegister
from authn.registration.desk import Letterhead, OfficerDesk
from authn.registration.officers import Officers
from authn.registration.papers import Papers
from authn.registration.register import PhoneChange, Registration
from authn.sessions import Sessions
from certs.anchors import TrustAnchors
from certs.clients import ClientCertificates
from certs.http_issuer import HTTPIssuer
from certs.issuer import Issuer, NoIssuer, OrganisationSubject
from domain.clock import Clock, SystemClock
from hsm.keys import SigningKey
from hsm.pool import HSMPool
from hsm.settings import TokenSettings
from hsm.token_vault import TokenVault
from hsm.vault import Vault
from rubrica.core_sockets import listening
from rubrica.database import make_engine
from rubrica.logs import configure_logs
from rubrica.press import Press
from rubrica.settings.core import CoreSettings
from rubrica.state import write_atomically
from signer.activation import Activation
from signer.approvals import Approvals
from signer.credentials import Credentials
from signer.epochs import Epochs
from signer.evidence import ApprovalEvidence
from signer.newborn import NewbornKeys
from signer.overview import KeyOverview
from signer.refusals import Refusals
from signer.requests import Requests, StagingLimits
from signer.revocation import OpenWork, Revocation
from signer.seal import Seal
from signer.signing import Signing

LEASE_RENEWAL_SECONDS = 3.0
SWEEP_SECONDS = 30.0
NOTICE_SECONDS = 5.0
REFILL_SECONDS = 1.0
LOG_SHARD = "1"
AREA_RETURN_PATH = "area/return"
"""Where an edge takes identity tokens (``api/web/area.py``), behind its address."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOutside:
    """What the core reaches, and what tests replace one by one."""

    engine: AsyncEngine
    vault: Vault
    clock: Clock
    issuer: Issuer
    gateway: SMSGateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The wired core, before it listens."""

    engine: AsyncEngine
    vault: Vault
    log: Log
    reader: LogReader
    activation: Activation
    signing: Signing
    challenges: Challenges
    password_activation: PasswordActivation
    password_change: PasswordChange
    grants: Grants
    pins: PINLogin
    sessions: Sessions
    area: Area
    officers: Officers
    desk: OfficerDesk
    papers: Papers
    registration: Registration
    phone_change: PhoneChange
    unlocking: Unlocking
    callers: CallerRegister
    authenticator: ClientAuthenticator
    revocation: Revocation
    newborns: NewbornKeys
    requests: Requests
    approvals: Approvals
    epochs: Epochs
    otp: OTPChallenges
    factors: PasswordFactors
    codes: SealedActivationCodes
    stretcher: Stretcher
    sender: OutboxSender
    sequencer: Sequencer
    published: Published
    notices: BlockNotices
    code_notices: CodeBlockNotices
    clock: Clock


def run(settings_path: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        pydantic.ValidationError: The settings are wrong.
        HSMError: The token is not there, or not as it must be.
        OSError: A folder or socket cannot be used, or another core of this name runs.
    """
    settings = CoreSettings.load(settings_path)
    configure_logs(settings.log_level)
    os.umask(0o077)
    # Secrets pass through this memory: none of it may lie in a dump.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with only_one(settings):
        asyncio.run(_serve(settings))


@contextlib.contextmanager
def only_one(settings: CoreSettings) -> Iterator[None]:
    """Hold this instance's lock file: its older epochs are dead, whatever their lease says.

    Raises:
        BlockingIOError: Another core of this name runs.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (settings.state_dir / f"{settings.instance}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


async def _serve(settings: CoreSettings) -> None:
    token = TokenSettings(
        module=settings.token_module,
        token_label=settings.token_label,
        pin_file=settings.token_pin_file,
        conf_path=settings.softhsm2_conf,
    )
    pool = await HSMPool.start(token, workers=settings.hsm_workers, queue_limit=settings.hsm_queue_limit)
    engine = make_engine(settings.database_url, settings.database_password_file)
    issuer = HTTPIssuer(settings.issuer_socket) if settings.issuer_socket else NoIssuer()
    gateway = HTTPSMSGateway(
        HTTPGatewayConfig(
            url=settings.sms_url,
            json={"id": "{id}", "to": "{phone}", "text": "{text}"},
            headers={"Authorization": "Bearer {secret}"} if settings.sms_secret_file else {},
            secret_file=settings.sms_secret_file,
        )
    )
    try:
        outside = CoreOutside(
            engine=engine, vault=TokenVault(pool), clock=SystemClock(), issuer=issuer, gateway=gateway
        )
        core = await wire(settings, outside)
        if settings.token_key_file is not None:
            await _publish_token_key(core.vault, settings.token_key_file)
        async with listening(settings.sockets_dir, core):
            log.info("core ready", epoch=core.epochs.current)
            await _until_stopped(core, settings.instance)
        await core.epochs.close()
        log.info("core stopped")
    finally:
        await gateway.aclose()
        await engine.dispose()
        await pool.close()


async def _publish_token_key(vault: Vault, path: Path) -> None:
    key = load_der_public_key(await vault.public_key(SigningKey.TOKENS))
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_atomically(path, pem.decode(), mode=0o644)


async def wire(settings: CoreSettings, outside: CoreOutside) -> Core:
    """Make every part once, the tables where they are missing, and open this core's epoch."""
    engine, vault, clock = outside.engine, outside.vault, outside.clock
    async with engine.begin() as connection:
        for metadata in (audit.log.metadata, authn.tables.metadata, signer.tables.metadata):
            await connection.run_sync(metadata.create_all)
    parameters = StretchParameters(settings.argon2_time_cost, settings.argon2_memory_kib)
    leaves = Log(clock)
    log_dir = settings.log_dir or settings.state_dir / "log"
    origin = f"{settings.log_origin or f'{settings.gate_host}/log'}/{LOG_SHARD}"
    lag = Lag(clock, LOG_SHARD, LagLimits(age=settings.log_age_limit, leaves=settings.log_backlog_limit))
    columns = await ColumnCipher.load(engine, vault)
    register = CitizenRegister(vault, columns, clock)
    texts = SMSTexts(service=settings.service_name, gate_host=settings.gate_host)
    outbox = Outbox(columns, clock)
    web = Caller(
        id=WEB, name=settings.service_name, rights=frozenset({Right.SIGN}), return_urls=settings.edge_addresses
    )
    certificates = ClientCertificates(settings.agency_trust_dir)
    callers = CallerRegister(
        columns, clock, leaves, certificates, web=web, plain_http=settings.profile == "development"
    )
    challenges = Challenges(engine, vault, clock, leaves)
    stretcher = Stretcher(queue_limit=settings.argon2_queue_limit)
    factors = PasswordFactors(vault, stretcher, clock)
    code_budget = CodeBudget(clock, rules(settings.sms_budget, settings.code_life))
    otp = OTPChallenges(engine, vault, challenges, code_budget, leaves, clock)
    code_sender = CodeSender(otp, code_budget, outbox, leaves)
    grants = Grants(engine=engine, challenges=challenges, otp=otp, register=register, log=leaves, clock=clock)
    codes = SealedActivationCodes(vault, clock)
    await factors.make_decoys(engine, parameters)
    await codes.make_decoys(engine)
    requests = Requests(engine, clock, StagingLimits(settings.items_per_request, settings.edge_addresses))
    approvals = Approvals(clock)
    credentials = Credentials(clock)
    sessions = Sessions(vault, columns, clock)
    open_work = OpenWork(otp, grants, approvals, sessions)
    anchors = TrustAnchors(settings.trust_anchors_file)
    epochs = Epochs(engine, clock, approvals, leaves, settings.instance)
    await epochs.open()
    refusals = Refusals(engine, leaves)
    newborns = NewbornKeys(vault)
    registration = Registration(register, codes, leaves)
    phone_change = PhoneChange(
        engine=engine,
        register=register,
        open_work=open_work,
        outbox=outbox,
        texts=texts,
        log=leaves,
        clock=clock,
    )
    seal = Seal(
        engine=engine,
        vault=vault,
        issuer=outside.issuer,
        anchors=anchors,
        clock=clock,
        log=leaves,
        subject=OrganisationSubject(organisation=settings.organisation, organisation_id=settings.organisation_id),
    )
    papers = Papers(engine=engine, vault=vault, columns=columns, clock=clock, printer=Press(seal))
    officers = Officers(engine=engine, vault=vault, columns=columns, register=register, clock=clock, log=leaves)
    desk = OfficerDesk(
        engine=engine,
        clock=clock,
        log=leaves,
        officers=officers,
        register=register,
        registration=registration,
        codes=codes,
        phone_change=phone_change,
        papers=papers,
        letterhead=Letterhead(
            service=settings.service_name,
            organisation=settings.organisation,
            activate_at=settings.activate_url or f"https://{settings.gate_host}/activate",
            verify_at=settings.verify_url or f"{settings.edge_addresses[0]}verify",
        ),
    )
    return Core(
        engine=engine,
        vault=vault,
        clock=clock,
        log=leaves,
        reader=LogReader(engine, ApprovalEvidence()),
        challenges=challenges,
        stretcher=stretcher,
        factors=factors,
        otp=otp,
        grants=grants,
        sessions=sessions,
        area=Area(
            engine=engine,
            clock=clock,
            sessions=sessions,
            register=register,
            factors=factors,
            keys=KeyOverview(),
            audience=WEB,
        ),
        pins=PINLogin(
            engine=engine,
            clock=clock,
            log=leaves,
            register=register,
            challenges=challenges,
            otp=otp,
            sessions=sessions,
            sender=code_sender,
            texts=texts,
            return_urls={WEB: f"{settings.edge_addresses[0]}{AREA_RETURN_PATH}"},
        ),
        codes=codes,
        callers=callers,
        requests=requests,
        approvals=approvals,
        epochs=epochs,
        authenticator=ClientAuthenticator(engine, callers, certificates, clock, audience=settings.client_audience),
        officers=officers,
        desk=desk,
        papers=papers,
        registration=registration,
        phone_change=phone_change,
        unlocking=Unlocking(engine, register, factors, leaves),
        password_activation=PasswordActivation(
            engine=engine,
            log=leaves,
            register=register,
            codes=codes,
            challenges=challenges,
            factors=factors,
            otp=otp,
            grants=grants,
            sender=code_sender,
            texts=texts,
            parameters=parameters,
        ),
        password_change=PasswordChange(
            engine=engine,
            clock=clock,
            log=leaves,
            register=register,
            challenges=challenges,
            stretcher=stretcher,
            factors=factors,
            otp=otp,
            grants=grants,
            sender=code_sender,
            outbox=outbox,
            texts=texts,
            parameters=parameters,
            sealed_keys=credentials,
            open_work=open_work,
        ),
        activation=Activation(
            engine=engine,
            vault=vault,
            clock=clock,
            log=leaves,
            callers=callers,
            register=register,
            challenges=challenges,
            stretcher=stretcher,
            factors=factors,
            otp=otp,
            sender=code_sender,
            outbox=outbox,
            texts=texts,
            requests=requests,
            approvals=approvals,
            credentials=credentials,
            newborns=newborns,
            refusals=refusals,
        ),
        signing=Signing(
            engine=engine,
            vault=vault,
            clock=clock,
            log=leaves,
            register=register,
            requests=requests,
            approvals=approvals,
            credentials=credentials,
            epochs=epochs,
            issuer=outside.issuer,
            anchors=anchors,
            refusals=refusals,
            lag=lag,
        ),
        newborns=newborns,
        revocation=Revocation(engine, register, credentials, open_work, outside.issuer, leaves),
        sequencer=Sequencer(
            engine=engine,
            vault=vault,
            clock=clock,
            folder=log_dir,
            memory=Memory(settings.log_memory_file or settings.state_dir / "log-memory.json"),
            shard=LOG_SHARD,
            origin=origin,
        ),
        published=Published(engine=engine, vault=vault, folder=log_dir, shard=LOG_SHARD, origin=origin),
        sender=OutboxSender(engine, outbox, outside.gateway, clock),
        notices=BlockNotices(engine=engine, register=register, outbox=outbox, texts=texts, log=leaves, clock=clock),
        code_notices=CodeBlockNotices(
            engine=engine,
            register=register,
            budget=code_budget,
            outbox=outbox,
            texts=texts,
            log=leaves,
            clock=clock,
        ),
    )


async def _until_stopped(core: Core, instance: str) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    chores = [
        asyncio.create_task(core.sender.run()),
        asyncio.create_task(core.sequencer.run(instance)),
        asyncio.create_task(_every(LEASE_RENEWAL_SECONDS, core.epochs.renew)),
        asyncio.create_task(_every(LEASE_RENEWAL_SECONDS, core.epochs.fence_dead)),
        asyncio.create_task(_every(REFILL_SECONDS, core.newborns.refill)),
        asyncio.create_task(_every(NOTICE_SECONDS, core.notices.tell)),
        asyncio.create_task(_every(NOTICE_SECONDS, core.code_notices.tell)),
        asyncio.create_task(_every(SWEEP_SECONDS, lambda: sweep(core))),
    ]
    await stopped.wait()
    for chore in chores:
        chore.cancel()
    await asyncio.gather(*chores, return_exceptions=True)


async def sweep(core: Core) -> None:
    """Erase what is over, and tell the issuer of revocations that it does not know."""
    await core.challenges.erase_old()
    await core.otp.erase_old()
    await core.grants.erase_old()
    await core.sessions.erase_old(core.engine)
    async with core.engine.begin() as connection:
        await core.approvals.erase_old(connection)
    await core.revocation.tell_issuer()


async def _every(seconds: float, chore: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await chore()
        except Exception as error:  # noqa: BLE001 - a chore that fails once is tried again
            log.warning("chore_failed", chore=getattr(chore, "__qualname__", "sweep"), error=type(error).__name__)
        await asyncio.sleep(seconds)
