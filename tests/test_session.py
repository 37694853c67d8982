import time

import numpy as np
import pytest
from make_data import scene, two_things
from test_uploads import encoded

from kshot.errors import ImageError, KshotError
from kshot.web.images import ObjectClass
from kshot.web.limits import BusyError, LimitExceededError, Limits
from kshot.web.session_store import Sessions

PHOTO, MASK = scene()
DATA = encoded(PHOTO)
LABELS = MASK.astype(np.uint8)
DISC, SQUARE = (
    ObjectClass(value=value, name=name, colour="#102030") for value, name in ((1, "disc"), (2, "square"))
)


@pytest.fixture
def sessions(tmp_path):
    return Sessions(tmp_path, Limits(images=3, supports=2, sessions=2, session_bytes=4 * len(DATA)))


@pytest.fixture
def session(sessions):
    return sessions.create()


def store_result(session, image, labels=LABELS, version=None):
    maps = {1: {"probability": np.full(labels.shape, 0.75, np.float32)}}
    session.store_result(image, session.version if version is None else version, labels, maps, 0.5)


def test_an_image_keeps_its_pixels(session):
    image = session.add("one.png", DATA, "query")
    assert image.size == (90, 120)
    np.testing.assert_array_equal(session.pixels(image), PHOTO)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\Users\\me\\cup.jpg", "cup.jpg"),
        ("a\x00b\n.png", "ab.png"),
        ("..", "image"),
        ("", "image"),
        ("x" * 300 + ".jpg", "x" * 196 + ".jpg"),
        ("😀" * 100 + "a.jpg", "😀" * 48 + "a.jpg"),  # 200 bytes would begin within a letter
    ],
)
def test_an_uploaded_name_is_never_a_path(session, tmp_path, sent, kept):
    image = session.add(sent, DATA, "query")
    assert image.name == kept
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.parent == session.folder
    assert path.name == f"{image.id}.upload"


def test_queries_are_outdated_when_supports_change(session):
    query, support = session.add("q", DATA, "query"), session.add("s", DATA, "support")
    assert session.outdated() == []  # no labelled image yet
    session.set_labels(support, LABELS)
    assert session.outdated() == [query]
    store_result(session, query)
    assert session.outdated() == []
    assert session.has_current_labels(query)
    np.testing.assert_array_equal(session.labels(query), LABELS)
    assert query.result.confidence == pytest.approx(0.5)
    assert np.asarray(session.probability_map(query, "probability", 1)).mean() == 191
    session.set_labels(support, 1 - LABELS)
    assert session.outdated() == [query]
    assert not session.has_current_labels(query)
    np.testing.assert_array_equal(session.labels(query), LABELS)  # stale, but there
    store_result(session, query, 1 - LABELS)
    np.testing.assert_array_equal(session.labels(query), 1 - LABELS)
    assert len(list(session.folder.glob(f"{query.id}.*.labels.png"))) == 1  # the stale one is gone


def test_a_prediction_with_old_supports_is_dropped(session):
    query, support = session.add("q", DATA, "query"), session.add("s", DATA, "support")
    session.set_labels(support, LABELS)
    before = session.version
    session.set_labels(support, 1 - LABELS)
    store_result(session, query, version=before)
    session.store_problem(query, before, "old")
    assert query.result is None
    assert query.problem is None


def test_a_corrected_result_becomes_a_support_and_back(session):
    query, support = session.add("q", DATA, "query"), session.add("s", DATA, "support")
    session.set_labels(support, LABELS)
    store_result(session, query)
    session.set_labels(query, 1 - LABELS)
    assert session.outdated() == []
    np.testing.assert_array_equal(session.labels(query), 1 - LABELS)
    session.set_labels(query, None)
    assert session.outdated() == [query]
    np.testing.assert_array_equal(session.labels(query), LABELS)
    session.remove(support)
    assert session.outdated() == []
    assert not list(session.folder.glob(f"{support.id}.*"))


def test_missing_results_are_reported(session):
    image = session.add("q.jpg", DATA, "query")
    with pytest.raises(KshotError, match=r"'q.jpg' has no labels and no result yet"):
        session.labels(image)
    with pytest.raises(KshotError, match="has no first pass of class 1"):
        session.probability_map(image, "first_pass", 1)
    with pytest.raises(ImageError):
        session.add("q", b"nothing", "query")


def test_a_removed_class_takes_its_labels_along(session):
    session.set_classes([DISC, SQUARE])
    image, labels = two_things()
    both = session.add("both", encoded(image), "support")
    only = session.add("only", encoded(image), "support")
    session.set_labels(both, labels)
    session.set_labels(only, np.where(labels == 2, labels, 0))
    before = session.version
    session.set_classes([DISC.model_copy(update={"name": "coin"}), SQUARE])
    assert session.version == before  # a new name changes no prediction
    session.set_classes([DISC])
    assert session.version > before
    np.testing.assert_array_equal(session.labels(both), labels == 1)
    assert not only.is_labelled
    assert session.colour(1) == (16, 32, 48)
    assert session.colour(2) == (0, 0, 0)


@pytest.mark.parametrize("classes", [[], [DISC, DISC], [DISC, SQUARE.model_copy(update={"name": "disc"})]])
def test_ambiguous_classes_are_refused(session, classes):
    with pytest.raises(KshotError, match="each with a unique value and a unique name"):
        session.set_classes(classes)


def test_a_session_has_limits(session):
    first, second, third = [session.add("p", DATA, "query") for _ in range(3)]
    with pytest.raises(LimitExceededError, match="3 images"):
        session.add("p", DATA, "query")
    session.set_labels(first, LABELS)
    session.set_labels(second, LABELS)
    session.set_labels(second, 1 - LABELS)
    with pytest.raises(LimitExceededError, match="2 labelled images"):
        session.set_labels(third, LABELS)
    session.remove(third)
    with pytest.raises(LimitExceededError, match="MB"):
        session.add("p", DATA + bytes(3 * len(DATA)), "query")


def test_sessions_end_and_expire(sessions, monkeypatch):
    first, second = sessions.create(), sessions.create()
    first.add("p", DATA, "query")
    assert first.folder.exists()
    with pytest.raises(BusyError, match="2 sessions"):
        sessions.create()
    sessions.close(second)
    assert sessions.get(second.id) is None
    assert sessions.get(first.id) is first
    later = time.monotonic() + 13 * 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert sessions.get(first.id) is None
    assert not first.folder.exists()
    with pytest.raises(KshotError, match="closed"):
        first.add("p", DATA, "query")
    assert not first.folder.exists()
