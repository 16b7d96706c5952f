"""The command ``rubrica-verify``: exit code 0 sound, 1 tampered, 2 unusable input."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rubrica_verify import one
from rubrica_verify.files import LogFolder
from rubrica_verify.full import FullVerification, Kept
from rubrica_verify.note import LogKey
from rubrica_verify.report import Report, Unusable


def parser() -> argparse.ArgumentParser:
    """What can be asked."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--key", type=Path, required=True, metavar="LOG.pem", help="public key of the log")
    common.add_argument("--origin", default="", help="what the log must call itself")
    common.add_argument("--json", action="store_true", help="the report as JSON")

    whole = argparse.ArgumentParser(
        prog="rubrica-verify",
        description="Verifies the log of a Rúbrica signing service offline.",
        epilog="Exit code: 0 sound, 1 tampered, 2 unusable input.",
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    full = commands.add_parser("full", parents=[common], help="every leaf, every tile, every rule")
    full.add_argument("folder", type=Path, metavar="DIR", help="the log: checkpoint and tile/")
    full.add_argument(
        "--checkpoint", type=Path, action="append", default=[], metavar="KEPT", help="kept elsewhere; may be repeated"
    )
    full.add_argument("--scratch", type=Path, help="folder for temporary files of large logs: 100 bytes a leaf")

    checkpoint = commands.add_parser("checkpoint", parents=[common], help="a checkpoint's signature")
    checkpoint.add_argument("note", type=Path, metavar="NOTE")

    inclusion = commands.add_parser("inclusion", parents=[common], help="that a leaf is in the log")
    inclusion.add_argument("where", type=Path, metavar="DIR|PROOF", help="the log, or a proof without it")
    inclusion.add_argument("--leaf", required=True, metavar="FILE|ID", help="the leaf's octets, or its id")
    inclusion.add_argument("--write", type=Path, metavar="PROOF", help="write a proof that needs no log")

    consistency = commands.add_parser("consistency", parents=[common], help="that the log only grew")
    consistency.add_argument("folder", type=Path, metavar="DIR")
    consistency.add_argument("--from", type=Path, required=True, dest="old", metavar="OLD", help="older checkpoint")
    consistency.add_argument("--to", type=Path, required=True, dest="new", metavar="NEW", help="newer checkpoint")
    return whole


def verify(arguments: argparse.Namespace) -> Report:
    """Do what was asked."""
    report = Report(arguments.command)
    try:
        _verify(arguments, report)
    except Unusable as error:
        report.unusable = str(error)
    except OSError as error:
        report.unusable = f"{error.filename or 'a file'}: {error.strerror or error}"
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Run; gives the exit code."""
    arguments = parser().parse_args(argv)
    report = verify(arguments)
    sys.stdout.write((report.as_json() if arguments.json else report.as_text()) + "\n")
    return report.verdict.value


def _verify(arguments: argparse.Namespace, report: Report) -> None:
    key = LogKey.load(arguments.key)
    match arguments.command:
        case "full":
            kept = [Kept(str(path), one.read_kept(path, key)) for path in arguments.checkpoint]
            report.facts["checkpoints_kept"] = [
                {"file": item.name, "size": item.checkpoint.size, "root": item.checkpoint.root.hex()} for item in kept
            ]
            FullVerification(
                LogFolder(arguments.folder), key, kept, report, origin=arguments.origin, scratch=arguments.scratch
            ).run()
        case "checkpoint":
            one.checkpoint(arguments.note, key, arguments.origin, report)
        case "inclusion" if arguments.where.is_dir():
            made = one.inclusion(LogFolder(arguments.where), key, arguments.leaf, arguments.origin, report)
            if made is not None and arguments.write is not None:
                arguments.write.write_bytes(made.text())
        case "inclusion":
            one.proof(arguments.where, key, Path(arguments.leaf), arguments.origin, report)
        case "consistency":
            notes = [(path, one.read_kept(path, key)) for path in (arguments.old, arguments.new)]
            if not arguments.folder.is_dir():
                raise Unusable(f"{arguments.folder}: there is no such folder")
            one.consistency(LogFolder(arguments.folder), notes, arguments.origin, report)
