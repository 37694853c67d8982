import numpy as np
import pytest
from make_data import iou, tiny_backbone
from PIL import Image, ImageDraw

from benchmarks.peers import ForestPeer, LogisticPeer, grid_samples


def disc(left, top, width=120, height=100, seed=0):
    """Draw a bright disc on dark noise; give the image and its ground truth, with an unknown border."""
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    image, ground_truth = Image.fromarray(pixels), Image.new("L", (width, height))
    box = (left, top, left + 50, top + 50)
    ImageDraw.Draw(image).ellipse(box, fill=(230, 230, 220))
    ImageDraw.Draw(ground_truth).ellipse(box, fill=1)
    ground_truth = np.array(ground_truth)
    ground_truth[:2] = 255
    return image, ground_truth


PEERS = {"logistic": lambda: LogisticPeer(tiny_backbone(), 257), "forest": ForestPeer}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("shots", [1, 2])
def test_a_bright_disc_is_found(name, shots):
    peer = PEERS[name]()
    supports = [disc(10 + 20 * n, 15, seed=n) for n in range(shots)]
    encoded = [peer.encode(image, as_query=False) for image, _ in supports]
    fitted = peer.fit(encoded, [ground_truth for _, ground_truth in supports])
    query, ground_truth = disc(40, 30, width=140, seed=9)
    mask, probability = peer.predict(fitted, peer.encode(query, as_query=True), ground_truth.shape)
    assert iou(mask, ground_truth == 1) > 0.8
    assert (probability.shape, probability.dtype) == (ground_truth.shape, np.float32)
    assert 0 <= probability.min() <= probability.max() <= 1
    np.testing.assert_array_equal(mask, probability > 0.5)


@pytest.mark.parametrize("name", PEERS)
def test_a_support_set_of_one_class_gives_that_class(name):
    peer = PEERS[name]()
    image, ground_truth = disc(10, 10)
    encoded = peer.encode(image, as_query=True)
    mask, _ = peer.predict(peer.fit([encoded], [np.ones_like(ground_truth)]), encoded, ground_truth.shape)
    assert mask.all()


def test_large_images_are_read_at_512_pixels():
    assert ForestPeer().encode(Image.new("RGB", (1024, 300)), as_query=True).shape[:2] == (150, 512)


def test_positions_are_labelled_by_area():
    features = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, 0] = 1  # half of the first position
    mask[2:, 2:] = 255  # nothing is known of the last
    found, labels = grid_samples(features, mask)
    assert (found.ravel().tolist(), labels.tolist()) == ([0, 1, 2], [1, 0, 0])
    mask[0, 0] = 0
    mask[1, 1] = 255  # a third of what is known, the largest share
    assert grid_samples(features, mask)[1].tolist() == [1, 0, 0]
    mask[:] = 1
    mask[3, 0] = 0  # a little background
    assert grid_samples(features, mask)[1].tolist() == [1, 1, 0, 1]
    mask[:] = 0
    assert grid_samples(features, mask)[1].tolist() == [0, 0, 0, 0]


def test_forest_draws_as_many_pixels_of_both_classes():
    peer = ForestPeer()
    peer.samples_of_class = 5
    labels = np.array([0] * 30 + [1] * 3)
    drawn = peer._balanced(labels, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == len(drawn) == 8
    assert labels[drawn].tolist() == [0] * 5 + [1] * 3
