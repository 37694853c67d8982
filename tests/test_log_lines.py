import logging

import pytest

from kshot.cli.log_lines import LineHandler, show_messages


@pytest.fixture
def logger():
    """Return the library's logger; afterwards it is as before."""
    found = logging.getLogger("kshot")
    before, level = list(found.handlers), found.level
    found.handlers = [one for one in before if not isinstance(one, LineHandler)]
    found.setLevel(logging.NOTSET)
    yield found
    found.handlers = before
    found.setLevel(level)


def test_the_command_shows_messages_as_plain_lines(logger, capsys):
    show_messages()
    show_messages()  # by a second call of the command
    logging.getLogger("kshot.predict").info("100 %% of %s", "[red]a.jpg")
    logging.getLogger("kshot.predict").warning("low")
    logging.getLogger("kshot.predict").debug("hidden")
    assert capsys.readouterr() == ("100 % of [red]a.jpg\n", "low\n")


def test_the_library_alone_shows_no_progress(logger, capsys):
    logging.getLogger("kshot.predict").info("1/4 done")
    assert capsys.readouterr() == ("", "")
