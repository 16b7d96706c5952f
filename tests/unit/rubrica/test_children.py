import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rubrica.children import Child, ChildSpec, StartFailed

ALIVE = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('here'); time.sleep(60)"
STUBBORN = (
    "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "pathlib.Path(sys.argv[1]).write_text('here'); time.sleep(60)"
)


def spec(tmp_path: Path, program: str, ready: Callable[[], Awaitable[bool]] | None = None) -> ChildSpec:
    flag = tmp_path / "flag"

    async def is_there() -> bool:
        return flag.exists()

    command = (sys.executable, "-c", program, str(flag))
    return ChildSpec(name="edge", command=command, log=tmp_path / "log" / "edge.log", ready=ready or is_there)


def stat_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text()


async def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = stat_of(pid).rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_child_starts_and_stops(tmp_path: Path) -> None:
    child = Child(spec(tmp_path, ALIVE), report=lambda _: None)
    await child.start(within_seconds=10)
    pid = child.pid
    assert pid is not None
    assert os.getsid(pid) == pid

    await child.stop(within_seconds=5)

    assert child.pid is None
    assert await gone(pid)


async def test_a_dead_child_is_started_again_and_the_operator_told(tmp_path: Path) -> None:
    said: list[str] = []
    child = Child(spec(tmp_path, ALIVE), report=said.append)
    await child.start(within_seconds=10)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    for _ in range(100):
        if child.pid not in (None, first):
            break
        await asyncio.sleep(0.05)

    assert child.pid not in (None, first)
    assert said == ["edge ended with status -9; starting it again"]
    await child.stop(within_seconds=5)


async def test_a_child_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path) -> None:
    child = Child(spec(tmp_path, "import sys; sys.exit('no token here')"), report=lambda _: None)

    with pytest.raises(StartFailed, match="edge ended with status 1: no token here"):
        await child.start(within_seconds=10)


async def test_a_child_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    async def never() -> bool:
        raise ConnectionRefusedError

    child = Child(spec(tmp_path, ALIVE, never), report=lambda _: None)

    with pytest.raises(StartFailed, match="did not answer within 1 s"):
        await child.start(within_seconds=1)
    assert child.pid is None


async def test_one_that_will_not_end_is_ended(tmp_path: Path) -> None:
    child = Child(spec(tmp_path, STUBBORN), report=lambda _: None)
    await child.start(within_seconds=10)
    pid = child.pid
    assert pid is not None
    begun = time.monotonic()

    await child.stop(within_seconds=0.5)

    assert await gone(pid)
    assert time.monotonic() - begun < 5


async def test_its_own_children_go_with_it(tmp_path: Path) -> None:
    program = (
        "import pathlib, subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "pathlib.Path(sys.argv[1]).write_text(str(p.pid)); time.sleep(60)"
    )
    child = Child(spec(tmp_path, program), report=lambda _: None)
    await child.start(within_seconds=10)
    grandchild = int((tmp_path / "flag").read_text())

    await child.stop(within_seconds=5)

    assert await gone(grandchild)


async def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    supervisor = f"""
import asyncio, pathlib, sys
from rubrica.children import Child, ChildSpec
flag = pathlib.Path({str(tmp_path / "flag")!r})
async def ready(): return flag.exists()
async def main():
    child = Child(ChildSpec(name="edge", command=(sys.executable, "-c", {ALIVE!r}, str(flag)),
                            log=flag.with_name("log"), ready=ready), report=print)
    await child.start(within_seconds=10)
    print(child.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", supervisor, stdout=subprocess.PIPE)
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    process.kill()
    await process.wait()

    assert await gone(pid)


async def test_descriptors_are_handed_down(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    program = f"import os; os.write({writing}, b'through')" + "; " + ALIVE
    given = spec(tmp_path, program)
    os.set_inheritable(writing, True)  # noqa: FBT003 -- the interface is the system's
    child = Child(
        ChildSpec(name=given.name, command=given.command, log=given.log, ready=given.ready, descriptors=(writing,)),
        report=lambda _: None,
    )
    await child.start(within_seconds=10)

    assert os.read(reading, 7) == b"through"
    await child.stop(within_seconds=5)
    os.close(reading)
    os.close(writing)
