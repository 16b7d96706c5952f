"""How every process logs."""

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """JSON lines on standard output; tracebacks without local variables, since those may hold secrets."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
    )
    # Libraries speak up from WARNING on only, whatever our level: below that httpx, say, tells whole addresses.
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
