import threading
import time

import numpy as np
import pytest
from make_data import colour_segmenter, iou, scene, tiny_method, two_things
from test_uploads import encoded

from kshot.errors import NotFittedError
from kshot.segmenter import Segmenter
from kshot.web.images import ObjectClass
from kshot.web.jobs import Worker, segment
from kshot.web.limits import Limits
from kshot.web.session_store import Sessions

SUPPORT, MASK = scene()


@pytest.fixture
def session(tmp_path):
    return Sessions(tmp_path, Limits()).create()


@pytest.fixture
def worker():
    worker = Worker(colour_segmenter())
    worker.start()
    yield worker
    worker.stop()


def add_support(session, image=SUPPORT, labels=MASK):
    support = session.add("support.png", encoded(image), "support")
    session.set_labels(support, np.asarray(labels, np.uint8))
    return support


def add_query(session, left=50):
    image, ground_truth = scene(left=left, seed=left)
    return session.add(f"{left}.png", encoded(image), "query"), ground_truth


def settle(worker, session):
    worker.enqueue(session)
    deadline = time.monotonic() + 10
    while session.outdated():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_queries_are_segmented_again_when_supports_change(worker, session):
    support = add_support(session)
    queries = [add_query(session, left) for left in (20, 40, 60)]
    settle(worker, session)
    for query, ground_truth in queries:
        assert iou(session.labels(query) == 1, ground_truth) > 0.8
        assert 0 < query.result.confidence <= 1
    session.set_labels(support, 1 - MASK.astype(np.uint8))
    settle(worker, session)
    for query, ground_truth in queries:
        assert iou(session.labels(query) == 1, ~ground_truth) > 0.8


def test_several_classes_keep_their_values(worker, session):
    session.set_classes([ObjectClass(value=v, name=str(v), colour="#000000") for v in (7, 2, 9)])
    image, labels = two_things()
    add_support(session, image, np.array([0, 7, 2], np.uint8)[labels])
    query_image, ground_truth = two_things(red=100, blue=20)
    query = session.add("q", encoded(query_image), "query")
    settle(worker, session)
    found = session.labels(query)
    assert set(np.unique(found)) == {0, 2, 7}
    assert iou(found == 7, ground_truth == 1) > 0.7
    assert iou(found == 2, ground_truth == 2) > 0.7
    assert query.result.class_values == (7, 2)  # 9 has no support


def test_the_probability_maps_are_stored(session):
    base = colour_segmenter()
    model = Segmenter(base.config, tiny_method("two-pass"), base.device)
    add_support(session)
    query, _ = add_query(session)
    segment(model, session, query)
    assert query.result.maps == ("probability", "first_pass", "second_pass")
    assert session.probability_map(query, "second_pass", 1).size == (120, 90)


def test_a_support_that_cannot_be_used_says_why_and_others_go_on(worker, session):
    speck = np.zeros_like(MASK)
    speck[2, 2] = True  # lost at 48 pixels
    bad = add_support(session, labels=speck)
    query, ground_truth = add_query(session)
    worker.enqueue(session)
    deadline = time.monotonic() + 10
    while query.problem is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert "too small" in bad.problem
    assert query.problem == str(
        NotFittedError("None of the labelled images can be used; each shows its own error.")
    )
    add_support(session)
    settle(worker, session)
    assert query.problem is None
    assert iou(session.labels(query) == 1, ground_truth) > 0.8


def test_supports_are_encoded_once_for_each_version_of_their_labels(session, monkeypatch):
    model, reads = colour_segmenter(), []
    monkeypatch.setattr(
        model.method, "support_features", lambda images: reads.append(1) or images, raising=False
    )
    support, queries = add_support(session), [add_query(session, left)[0] for left in (30, 50)]
    for query in queries:
        segment(model, session, query)
    assert len(reads) == 1
    session.set_labels(support, 1 - MASK.astype(np.uint8))
    for query in queries:
        segment(model, session, query)
    assert len(reads) == 2


def test_a_crash_is_stored_with_its_image_and_the_worker_goes_on(session, monkeypatch, capsys):
    model = colour_segmenter()
    worker, calls = Worker(model), []
    original = model.method.segment

    def crash_once(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return original(*arguments)

    monkeypatch.setattr(model.method, "segment", crash_once, raising=False)
    add_support(session)
    first, second = add_query(session, 30)[0], add_query(session, 50)[0]
    worker.start()
    settle(worker, session)
    worker.stop()
    assert first.problem == "It could not be segmented: out of memory."
    assert second.result is not None
    assert "RuntimeError: out of memory" in capsys.readouterr().err


def test_an_image_is_queued_once_and_dropped_with_its_session(session, monkeypatch):
    model, go = colour_segmenter(), threading.Event()
    worker, original = Worker(model), model.method.segment
    monkeypatch.setattr(
        model.method, "segment", lambda *arguments: (go.wait(10), original(*arguments))[1], raising=False
    )
    add_support(session)
    first, second = add_query(session, 30)[0], add_query(session, 50)[0]
    worker.start()
    for _ in range(3):
        worker.enqueue(session)
    deadline = time.monotonic() + 10
    while not worker.is_segmenting(first):
        assert time.monotonic() < deadline
    assert worker.queue_length() <= 2  # the second, and perhaps the first once more
    session.close()
    go.set()
    worker.stop()
    assert second.result is None
    assert not session.folder.exists()


def test_a_support_that_is_not_found_in_its_own_image_has_a_hint(worker, session):
    good, bad = add_support(session), add_support(session, labels=MASK & (np.arange(120) < 25))
    query, _ = add_query(session)
    settle(worker, session)
    assert good.hint is None
    assert bad.problem is None
    assert "hardly finds this in its own support image" in bad.hint
    session.set_labels(bad, MASK.astype(np.uint8))
    assert bad.hint is None
    assert query.problem is None
