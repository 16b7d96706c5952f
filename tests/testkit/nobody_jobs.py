"""``hostile_jobs`` in a service that no root started, but that was given capabilities, as a service manager can do.

The forking process becomes nobody before it forks.
"""

import ctypes
import os

from tests.testkit.hostile_jobs import run

__all__ = ["run"]

_NOBODY = 65534
_KEEP_CAPABILITIES = 8

if os.geteuid() == 0:
    ctypes.CDLL(None).prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
