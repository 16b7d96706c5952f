"""What a verification found, for people and for programs."""

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

SHOWN = 50
"""Findings that are told one by one; all are counted."""


class Unusable(Exception):
    """What was given cannot be verified: it says nothing about the log."""


class Verdict(IntEnum):
    """The exit code."""

    SOUND = 0
    TAMPERED = 1
    UNUSABLE = 2


class Fault(StrEnum):
    """Kinds of findings; never renamed."""

    CHECKPOINT = "checkpoint"
    """The folder's checkpoint is missing, malformed, or not signed by the log's key as this log."""
    ROLLED_BACK = "rolled_back"
    """A checkpoint kept elsewhere speaks of more leaves."""
    FORK = "fork"
    """A checkpoint kept elsewhere is of another history."""
    BUNDLE = "bundle"
    """A bundle of leaves is missing, malformed, or not what the hashes say."""
    TILE = "tile"
    """A hash tile is missing, malformed, or not what the leaves say."""
    ROOT = "root"
    """The leaves do not lead to the signed root."""
    LEAF = "leaf"
    """A leaf is malformed, or not in deterministic CBOR."""
    DUPLICATE = "duplicate"
    """Two leaves have one id."""
    PROOF = "proof"
    """A leaf is not in the log, or a proof does not hold."""
    I2 = "I2"
    """An intent has no end, two, or an end has no intent."""
    I3 = "I3"
    """Something was signed twice."""
    I4 = "I4"
    """Time runs backwards."""
    I5 = "I5"
    """A signature has no citizen's approval before it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    fault: Fault
    where: str
    what: str


@dataclass
class Report:
    """Filled while verifying."""

    command: str
    facts: dict[str, object] = field(default_factory=dict)
    """What was verified: origin, size, root and so on."""
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Fault] = field(default_factory=Counter)
    unusable: str = ""

    def add(self, fault: Fault, where: str, what: str) -> None:
        """Note a finding."""
        self.counts[fault] += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(fault, where, what))

    @property
    def verdict(self) -> Verdict:
        """What was found weighs more than what could not be read."""
        if self.counts:
            return Verdict.TAMPERED
        return Verdict.UNUSABLE if self.unusable else Verdict.SOUND

    def as_json(self) -> str:
        """One JSON object."""
        content = {
            "command": self.command,
            "verdict": self.verdict.name.lower(),
            **self.facts,
            "findings": [
                {"fault": finding.fault.value, "where": finding.where, "what": finding.what}
                for finding in self.findings
            ],
            "findings_by_fault": {fault.value: count for fault, count in sorted(self.counts.items())},
            "unusable": self.unusable,
        }
        return json.dumps(content, indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """Plain sentences."""
        lines = [f"{name}: {_plain(value)}" for name, value in self.facts.items()]
        lines += [f"{finding.fault}: {finding.where}: {finding.what}" for finding in self.findings]
        rest = self.counts.total() - len(self.findings)
        if rest:
            lines.append(f"and {rest} more")
        if self.unusable:
            lines.append(f"cannot be verified: {self.unusable}")
        lines.append(self.verdict.name)
        return "\n".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return f"{len(value)}"
    return str(value)
