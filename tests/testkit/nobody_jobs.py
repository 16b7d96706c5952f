"""``hostile_jobs`` in a service that no root started: the forking process becomes nobody before it forks."""

import os

from tests.testkit.hostile_jobs import run

__all__ = ["run"]

_NOBODY = 65534

if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
