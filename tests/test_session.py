import time

import numpy as np
import pytest
from make_data import scene, two_things
from test_uploads import encoded

from kshot.errors import ImageError, KshotError
from kshot.web.images import ObjectClass
from kshot.web.limits import BusyError, Limits, TooMuchError
from kshot.web.sessions import Sessions

PHOTO, MASK = scene()
DATA = encoded(PHOTO)
LABELS = MASK.astype(np.uint8)
DISC, SQUARE = (
    ObjectClass(value=value, name=name, colour="#102030") for value, name in ((1, "disc"), (2, "square"))
)


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path, Limits(photographs=3, supports=2, sessions=2, session_bytes=4 * len(DATA)))


@pytest.fixture
def session(sessions):
    return sessions.open()


def answer(session, photograph, labels=LABELS, version=None):
    maps = {1: {"probability": np.full(labels.shape, 0.75, np.float32)}}
    session.publish(photograph, session.version if version is None else version, labels, maps, 0.5)


def test_a_photograph_comes_back_in_its_pixels(session):
    photograph = session.add("one.png", DATA, "query")
    assert photograph.size == (90, 120)
    np.testing.assert_array_equal(session.picture(photograph), PHOTO)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\Users\\me\\cup.jpg", "cup.jpg"),
        ("a\x00b\n.png", "ab.png"),
        ("..", "photograph"),
        ("", "photograph"),
        ("x" * 300 + ".jpg", "x" * 196 + ".jpg"),
        ("😀" * 100 + "a.jpg", "😀" * 48 + "a.jpg"),  # 200 bytes would begin within a letter
    ],
)
def test_a_name_is_text_and_no_path(session, tmp_path, sent, kept):
    photograph = session.add(sent, DATA, "query")
    assert photograph.name == kept
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.parent == session.folder
    assert path.name == f"{photograph.id}.photo"


def test_queries_need_an_answer_when_supports_change(session):
    query, support = session.add("q", DATA, "query"), session.add("s", DATA, "support")
    assert session.outdated() == []  # nothing to go by
    session.draw(support, LABELS)
    assert session.outdated() == [query]
    answer(session, query)
    assert session.outdated() == []
    assert session.has_answer(query)
    np.testing.assert_array_equal(session.labels(query), LABELS)
    assert query.result.confidence == pytest.approx(0.5)
    assert np.asarray(session.step(query, "probability", 1)).mean() == 191
    session.draw(support, 1 - LABELS)
    assert session.outdated() == [query]
    assert not session.has_answer(query)
    np.testing.assert_array_equal(session.labels(query), LABELS)  # stale, but there
    answer(session, query, 1 - LABELS)
    np.testing.assert_array_equal(session.labels(query), 1 - LABELS)
    assert len(list(session.folder.glob(f"{query.id}.*.labels.png"))) == 1  # the stale one is gone


def test_an_answer_to_an_old_question_is_dropped(session):
    query, support = session.add("q", DATA, "query"), session.add("s", DATA, "support")
    session.draw(support, LABELS)
    asked = session.version
    session.draw(support, 1 - LABELS)
    answer(session, query, version=asked)
    session.fail(query, asked, "old")
    assert query.result is None
    assert query.problem is None


def test_a_result_that_is_drawn_on_becomes_a_support_and_back(session):
    query, support = session.add("q", DATA, "query"), session.add("s", DATA, "support")
    session.draw(support, LABELS)
    answer(session, query)
    session.draw(query, 1 - LABELS)
    assert session.outdated() == []
    np.testing.assert_array_equal(session.labels(query), 1 - LABELS)
    session.draw(query, None)
    assert session.outdated() == [query]
    np.testing.assert_array_equal(session.labels(query), LABELS)
    session.remove(support)
    assert session.outdated() == []
    assert not list(session.folder.glob(f"{support.id}.*"))


def test_what_is_missing_is_said(session):
    photograph = session.add("q.jpg", DATA, "query")
    with pytest.raises(KshotError, match=r"'q.jpg' has no labels and no result yet"):
        session.labels(photograph)
    with pytest.raises(KshotError, match="has no first pass of class 1"):
        session.step(photograph, "first_pass", 1)
    with pytest.raises(ImageError):
        session.add("q", b"nothing", "query")


def test_a_class_that_goes_takes_its_labels_along(session):
    session.set_classes([DISC, SQUARE])
    picture, labels = two_things()
    both = session.add("both", encoded(picture), "support")
    only = session.add("only", encoded(picture), "support")
    session.draw(both, labels)
    session.draw(only, np.where(labels == 2, labels, 0))
    before = session.version
    session.set_classes([DISC.model_copy(update={"name": "coin"}), SQUARE])
    assert session.version == before  # a name changes no answer
    session.set_classes([DISC])
    assert session.version > before
    np.testing.assert_array_equal(session.labels(both), labels == 1)
    assert not only.is_drawn
    assert session.colour(1) == (16, 32, 48)
    assert session.colour(2) == (0, 0, 0)


@pytest.mark.parametrize("classes", [[], [DISC, DISC], [DISC, SQUARE.model_copy(update={"name": "disc"})]])
def test_classes_that_cannot_be_told_apart_are_refused(session, classes):
    with pytest.raises(KshotError, match="each needs a value and a name of its own"):
        session.set_classes(classes)


def test_a_session_takes_only_so_much(session):
    first, second, third = [session.add("p", DATA, "query") for _ in range(3)]
    with pytest.raises(TooMuchError, match="3 photographs"):
        session.add("p", DATA, "query")
    session.draw(first, LABELS)
    session.draw(second, LABELS)
    session.draw(second, 1 - LABELS)
    with pytest.raises(TooMuchError, match="2 labelled photographs"):
        session.draw(third, LABELS)
    session.remove(third)
    with pytest.raises(TooMuchError, match="MB"):
        session.add("p", DATA + bytes(3 * len(DATA)), "query")


def test_sessions_end_and_expire(sessions, monkeypatch):
    first, second = sessions.open(), sessions.open()
    first.add("p", DATA, "query")
    assert first.folder.exists()
    with pytest.raises(BusyError, match="2 sessions"):
        sessions.open()
    sessions.close(second)
    assert sessions.find(second.id) is None
    assert sessions.find(first.id) is first
    later = time.monotonic() + 13 * 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert sessions.find(first.id) is None
    assert not first.folder.exists()
    with pytest.raises(KshotError, match="closed"):
        first.add("p", DATA, "query")
    assert not first.folder.exists()
