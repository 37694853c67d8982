"""Show the library's log messages to users of the command."""

import logging
import sys


class LineHandler(logging.Handler):
    """Writes messages as plain lines: warnings and errors to stderr, all others to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message at once; a full disk or a closed pipe raises OSError, as `print` does."""
        # Looked up at each message, because progress bars and tests replace the streams.
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        print(record.getMessage(), file=stream, flush=True)


def show_messages() -> None:
    """Show the messages of kshot's loggers from level INFO on."""
    logger = logging.getLogger("kshot")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, LineHandler) for handler in logger.handlers):
        logger.addHandler(LineHandler())
