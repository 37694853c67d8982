"""Show the library's log messages to users of the command."""

import logging
import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from kshot.errors import KshotError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
"""Values of the environment variable KSHOT_LOG: the least important messages that are shown."""


class LineHandler(logging.Handler):
    """Writes messages as plain lines: warnings and errors to stderr, all others to stdout.

    is_stdout_json: stdout is for JSON alone, so that all messages go to stderr.
    """

    is_stdout_json = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message at once; a full disk or a closed pipe raises OSError, as `print` does."""
        # Looked up at each message, because progress bars and tests replace the streams.
        is_error = record.levelno >= logging.WARNING or self.is_stdout_json
        print(record.getMessage(), file=sys.stderr if is_error else sys.stdout, flush=True)


def show_messages(arguments: Sequence[str] = ()) -> None:
    """Show the messages of kshot's loggers, from the level of KSHOT_LOG on, by default INFO.

    arguments: the command's; `--json -` keeps stdout free. Raises KshotError if KSHOT_LOG is no level.
    """
    given = os.environ.get("KSHOT_LOG", "info")
    if given.lower() not in LEVELS:
        raise KshotError(f"KSHOT_LOG is '{given}'; it must be one of {', '.join(LEVELS)}.")
    logger = logging.getLogger("kshot")
    logger.setLevel(LEVELS[given.lower()])
    handlers = [handler for handler in logger.handlers if isinstance(handler, LineHandler)]
    if not handlers:
        handlers.append(LineHandler())
        logger.addHandler(handlers[0])
    handlers[0].is_stdout_json = "--json=-" in arguments or ("--json", "-") in pairwise(arguments)
