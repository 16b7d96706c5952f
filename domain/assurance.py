"""Levels of registration and of authentication."""

from enum import StrEnum


class RegistrationLevel(StrEnum):
    """How surely the citizen was identified when registered; signing needs ``ADVANCED``."""

    BASIC = "basic"
    ADVANCED = "advanced"


class LoA(StrEnum):
    """Level of assurance of one log-in (Regulation (EU) 910/2014 art. 8)."""

    LOW = "low"
    SUBSTANTIAL = "substantial"
