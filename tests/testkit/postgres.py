"""A real PostgreSQL in a temporary folder, on a Unix socket, for as long as a test needs it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres() -> Iterator[str]:
    """Give the URL of an empty database; the server takes no TCP and is gone afterwards."""
    # Root may not run PostgreSQL, so its own user does; others run it themselves.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # The path of a Unix socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="rubrica-pg-", dir="/tmp"))
    shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        path = next(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        subprocess.run([path, *arguments], check=True, capture_output=True, user=user, cwd=folder, timeout=60)

    data = folder / "data"
    try:
        run("initdb", "-D", str(data), "-U", "rubrica", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+asyncpg://rubrica@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
