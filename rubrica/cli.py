"""The command ``rubrica``. Imports stand inside the commands, so that a process loads no more than its zone."""

import importlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from rubrica import auditor, officer
from rubrica.asking import ask, fail
from rubrica.state import SOFTHSM_MODULE

if TYPE_CHECKING:
    import grpc

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Rúbrica, a remote signing service.",
)
hsm = typer.Typer(no_args_is_help=True, help="Key ceremonies.")
client = typer.Typer(no_args_is_help=True, help="The register of calling systems.")
app.add_typer(hsm, name="hsm")
app.add_typer(client, name="client")
app.add_typer(auditor.app, name="audit")
app.add_typer(officer.app, name="officer")

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings, a TOML file; RUBRICA_… variables go before it.")
]
CheckConfig = Annotated[bool, typer.Option("--check-config", help="Only say what is wrong with the settings.")]
OperatorSocket = Annotated[
    Path | None,
    typer.Option("--socket", help="The core's operator socket; without it, that of the running 'rubrica up'."),
]

SETTINGS = {
    "edge": "EdgeSettings",
    "gate": "GateSettings",
    "core": "CoreSettings",
    "pki": "PKISettings",
    "inbox": "InboxSettings",
}
"""The settings class of each process, in ``rubrica.settings.<process>``."""


@app.command()
def edge(config: Config = None, *, check_config: CheckConfig = False) -> None:
    """Run the edge: documents, transactions, REST."""
    _run("edge", config, check_config=check_config)


@app.command()
def gate(config: Config = None, *, check_config: CheckConfig = False) -> None:
    """Run the gate: everything that takes a secret."""
    _run("gate", config, check_config=check_config)


@app.command()
def core(config: Config = None, *, check_config: CheckConfig = False) -> None:
    """Run the core: register, factors, keys, log."""
    _run("core", config, check_config=check_config)


@app.command()
def pki(config: Config = None, *, check_config: CheckConfig = False) -> None:
    """Run the development PKI: CA, OCSP, CRL, TSA."""
    _run("pki", config, check_config=check_config)


@app.command()
def inbox(config: Config = None, *, check_config: CheckConfig = False) -> None:
    """Run the development inbox, which plays the citizens' phones."""
    _run("inbox", config, check_config=check_config)


@app.command()
def up() -> None:
    """Keep the whole service running on this machine."""
    from rubrica.up import main

    raise typer.Exit(main())


@app.command()
def demo(
    sign: Annotated[str, typer.Option(envvar="RUBRICA_DEMO_SIGN", help="The file to sign; a sample without it.")] = "",
    out: Annotated[str, typer.Option(envvar="RUBRICA_DEMO_OUT", help="Where to put the signed file.")] = "",
    level: Annotated[str, typer.Option(envvar="RUBRICA_DEMO_LEVEL", help="B-B, B-T, B-LT or B-LTA; the highest.")] = "",
    format_: Annotated[str, typer.Option("--format", envvar="RUBRICA_DEMO_FORMAT", help="pades or xades.")] = "pades",
    packaging: Annotated[
        str, typer.Option(envvar="RUBRICA_DEMO_PACKAGING", help="enveloped; xades also enveloping or detached.")
    ] = "enveloped",
    algorithm: Annotated[str, typer.Option(envvar="RUBRICA_DEMO_ALGORITHM", help="ES256 or RS256.")] = "ES256",
) -> None:
    """Let a citizen sign a document, from registration to validation."""
    from rubrica.demo import main

    status = main(sign=sign, out=out, level=level, format_name=format_, packaging=packaging, algorithm=algorithm)
    raise typer.Exit(status)


@app.command()
def doctor() -> None:
    """Name what is missing here and the command that mends it."""
    from rubrica.doctor import main

    raise typer.Exit(main())


@app.command()
def ready(
    address: Annotated[str, typer.Argument(help="A URL, or the core's operator socket.")],
) -> None:
    """Ask a process whether it is ready: 0 or 1, for health checks."""
    if address.startswith("http"):
        import httpx

        try:
            answers = httpx.get(address, timeout=3.0, trust_env=False).is_success
        except httpx.HTTPError:
            answers = False
        if not answers:
            fail(f"{address} is not ready")
    else:
        from authn.client import RegistryClient

        ask("operator", Path(address), lambda channel: RegistryClient(channel).token_key())


@app.command()
def trust(
    folder: Annotated[Path, typer.Argument(help="Gets root.pem, ca.pem, root.crl and ca.crl.")],
    pki_url: Annotated[str, typer.Option("--pki", help="The development PKI; without it, that of 'rubrica up'.")] = "",
) -> None:
    """Write the development PKI's trust anchors and current CRLs."""
    import httpx

    from certs.pki.trust import write_trust_anchors
    from rubrica.state import Running, var_folder

    running = Running.read(var_folder() / "up.json")
    url = pki_url or (running.pki if running is not None else "")
    if not url:
        fail("no 'rubrica up' is running here; name the PKI with --pki")
    try:
        write_trust_anchors(folder, url)
    except (httpx.HTTPError, ValueError) as error:
        fail(f"{url} gave no trust anchors ({type(error).__name__})")


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A signed PDF or XML.")],
    content: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="What a detached XML signature signs."),
    ] = None,
    trust_: Annotated[
        Path | None,
        typer.Option(
            "--trust",
            exists=True,
            file_okay=False,
            help="Whom to believe: *.pem (self-signed: anchors) and *.crl; without it, the running 'rubrica up'.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A report for machines.")] = False,
) -> None:
    """Say who signed a file, when, at what level, and whether it was changed since: 0 valid, 1 not, 2 unusable."""
    from rubrica.validation import main

    raise typer.Exit(main(file=file, content=content, trust=trust_, as_json=as_json))


@app.command()
def change_phone(
    nif: Annotated[str, typer.Option()],
    phone: Annotated[str, typer.Option()],
    socket: OperatorSocket = None,
) -> None:
    """Give a citizen another phone; approvals that are open end."""
    from authn.client import RegistryClient

    ask("operator", socket, lambda channel: RegistryClient(channel).change_phone(nif, phone))


@app.command()
def unlock(nif: Annotated[str, typer.Option()], socket: OperatorSocket = None) -> None:
    """End a citizen's block after wrong passwords; their key was never lost."""
    from authn.client import RegistryClient

    ask("operator", socket, lambda channel: RegistryClient(channel).unlock(nif))


@app.command()
def revoke(
    nif: Annotated[str, typer.Option()],
    reason: Annotated[str, typer.Option(help="RFC 5280 reason, for example keyCompromise.")],
    socket: OperatorSocket = None,
) -> None:
    """Revoke a citizen's certificates and print their serial numbers."""
    from signer.client import CredentialOperationsClient

    for serial in ask("operator", socket, lambda channel: CredentialOperationsClient(channel).revoke(nif, reason)):
        typer.echo(serial)


@client.command("add")
def client_add(
    client_id: Annotated[str, typer.Argument(help="Its name in tokens.")],
    name: Annotated[str, typer.Option(help="What citizens are shown.")],
    return_url: Annotated[list[str], typer.Option(help="Exact address to which its citizens may be sent back.")],
    public_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="P-256 public key, PEM; or --certificate.")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Its certificate, then its authorities, PEM; or --public-key."),
    ] = None,
    right: Annotated[list[str], typer.Option(help="What it may ask for.")] = ["sign"],  # noqa: B006 -- typer's own form
    socket: OperatorSocket = None,
) -> None:
    """Enter a calling system, by its key or by its certificate."""
    from authn.client import RegistryClient

    if (public_key is None) == (certificate is None):
        fail("give either --public-key or --certificate")
    key = b"" if public_key is None else _public_key(public_key)
    chain = [] if certificate is None else _certificates(certificate)

    def question(channel: "grpc.aio.Channel") -> Coroutine[Any, Any, None]:
        return RegistryClient(channel).register_client(
            client_id=client_id,
            name=name,
            public_key=key,
            certificate_chain=chain,
            rights=right,
            return_urls=return_url,
        )

    ask("operator", socket, question)


@client.command("show")
def client_show(socket: OperatorSocket = None) -> None:
    """Print every calling system: id, state, whether it has a key or a certificate, rights, name."""
    from authn.client import RegistryClient

    for one in ask("operator", socket, lambda channel: RegistryClient(channel).clients()):
        typer.echo(f"{one.client_id}\t{one.state}\t{one.proof}\t{' '.join(sorted(one.rights))}\t{one.name}")


@client.command("block")
def client_block(
    client_id: Annotated[str, typer.Argument()],
    socket: OperatorSocket = None,
) -> None:
    """Listen to a calling system no more; what it has sent cannot be opened for approval either."""
    _set_client_state(client_id, "BLOCKED", socket)


@client.command("unblock")
def client_unblock(
    client_id: Annotated[str, typer.Argument()],
    socket: OperatorSocket = None,
) -> None:
    """Listen to a calling system again."""
    _set_client_state(client_id, "ACTIVE", socket)


def _set_client_state(client_id: str, state: str, socket: Path | None) -> None:
    from authn.client import RegistryClient

    ask("operator", socket, lambda channel: RegistryClient(channel).set_client_state(client_id, state))


def _public_key(path: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        fail(f"{path} holds no public key in PEM")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certificates(path: Path) -> list[bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return [each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(path.read_bytes())]
    except ValueError:
        fail(f"{path} holds no certificate in PEM")


TokenKind = Annotated[str, typer.Argument(help="core or pki: which keys the token holds.")]
TokenModule = Annotated[Path, typer.Option("--module", help="PKCS#11 library.")]
TokenLabel = Annotated[str, typer.Option("--label", help="Label of the token; without it, the same as its kind.")]
PINFile = Annotated[Path, typer.Option("--pin-file", help="The user's PIN, in a file of mode 0400.")]
SoftHSMConf = Annotated[
    Path | None, typer.Option("--softhsm-conf", help="SoftHSM only: its configuration; 'init' makes the token too.")
]


@hsm.command("init")
def hsm_init(
    kind: TokenKind,
    pin_file: PINFile,
    module: TokenModule = SOFTHSM_MODULE,
    label: TokenLabel = "",
    softhsm_conf: SoftHSMConf = None,
) -> None:
    """Make every key of a token and read every attribute back; a token that is complete is left alone."""
    from hsm import ceremony

    settings, inventory = _token(kind, module, label, pin_file, softhsm_conf)

    def run() -> Any:
        if settings.conf_path is not None:
            ceremony.initialise_token(settings)
        return ceremony.initialise(settings, inventory)

    _tell(_ceremony(run))


@hsm.command("status")
def hsm_status(
    kind: TokenKind,
    pin_file: PINFile,
    module: TokenModule = SOFTHSM_MODULE,
    label: TokenLabel = "",
    softhsm_conf: SoftHSMConf = None,
) -> None:
    """Look at a token without changing it; 0 only if it holds exactly its keys, every attribute as it must be."""
    from hsm import ceremony

    settings, inventory = _token(kind, module, label, pin_file, softhsm_conf)
    _tell(_ceremony(lambda: ceremony.status(settings, inventory)))


def _token(kind: str, module: Path, label: str, pin_file: Path, softhsm_conf: Path | None) -> Any:
    from hsm.keys import Inventory
    from hsm.settings import TokenSettings

    if kind not in set(Inventory):
        fail(f"a token is one of {', '.join(Inventory)}")
    conf = None if softhsm_conf is None else softhsm_conf.absolute()
    return TokenSettings(module, label or kind, pin_file.absolute(), conf), Inventory(kind)


def _ceremony(run: Callable[[], Any]) -> Any:
    from hsm.errors import HSMError

    try:
        return run()
    except HSMError as error:
        fail(str(error))


def _tell(report: Any) -> None:
    made = " (made now)" if report.made else ""
    typer.echo(f"token '{report.token_label}': {report.state.value}{made}")
    for line in report.findings or (f"  {label}" for label in report.keys):
        typer.echo(line)
    if report.state.value != "complete":
        raise typer.Exit(1)


def _run(process: str, config: Path | None, *, check_config: bool) -> None:
    if config is not None and not config.is_file():
        fail(f"there is no file {config}")
    settings = getattr(importlib.import_module(f"rubrica.settings.{process}"), SETTINGS[process])
    try:
        settings.load(config)
    except ValidationError as error:
        # Without the values: an operator may have put a secret where a path belongs.
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            place = ".".join(str(step) for step in problem["loc"]) or "settings"
            typer.echo(f"{place}: {problem['msg']}", err=True)
        raise typer.Exit(1) from None
    except ValueError as error:
        fail(f"{config}: {error}")
    if not check_config:
        importlib.import_module(f"rubrica.{process}").run(config)
