"""What commands that ask the core have in common: the channel, and one plain sentence when it does not work."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    import grpc

T = TypeVar("T")


def ask(caller: str, socket: Path | None, question: "Callable[[grpc.aio.Channel], Awaitable[T]]") -> T:
    """Ask the core through one of its sockets; ends the command if it refuses or is not there.

    Args:
        caller: ``operator`` or ``auditor``.
        socket: ``None`` means that of the running ``rubrica up``.
        question: Gets the channel.
    """
    from domain.errors import RubricaError
    from rubrica.state import caller_channel

    async def with_channel() -> T:
        async with caller_channel(caller, socket) as channel:
            return await question(channel)

    try:
        return asyncio.run(with_channel())
    except RubricaError as error:
        fail(f"{error.code}: {error.public_detail}")
    except FileNotFoundError as error:
        fail(str(error))


def fail(sentence: str, *, status: int = 1) -> NoReturn:
    """End the command with a sentence on standard error."""
    print(f"rubrica: {sentence}", file=sys.stderr)  # noqa: T201 -- typer's echo would say the same
    raise typer.Exit(status)
