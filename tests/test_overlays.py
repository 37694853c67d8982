import numpy as np
import pytest
from PIL import Image

from kshot.io.files import save_image
from kshot.io.images import read_mask
from kshot.io.overlays import (
    BAND,
    GAP,
    HEADER,
    contact_sheet,
    heatmap,
    label_colour,
    label_image,
    mask_image,
    montage,
    overlay,
)


def half_mask():
    mask = np.zeros((10, 12), bool)
    mask[2:8, 3:9] = True
    return mask


def test_a_written_mask_reads_back(tmp_path):
    save_image(mask_image(half_mask()), tmp_path / "new" / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "mask.png", (10, 12)), half_mask())


def test_an_overlay_tints_the_object_only():
    grey = Image.new("RGB", (12, 10), (100, 100, 100))
    pixels = np.asarray(overlay(grey, half_mask()))
    assert (pixels[~half_mask()] == 100).all()
    assert (pixels[2, 3:9] == 255).all()  # the outline
    assert pixels[4, 5, 0] > pixels[4, 5, 1]
    np.testing.assert_array_equal(np.asarray(overlay(grey, np.zeros((10, 12), bool))), np.asarray(grey))


def test_a_heatmap_is_grey():
    levels = np.linspace(0, 1, 120, dtype=np.float32).reshape(10, 12)
    pixels = np.asarray(heatmap(levels))
    np.testing.assert_allclose(pixels[..., 0] / 255, levels, atol=0.01)


def test_a_contact_sheet_names_its_rows():
    rows = [[("query", Image.new("RGB", (60, 60), "blue"))] for _ in range(2)]
    plain, titled = contact_sheet(rows, 60), np.asarray(contact_sheet(rows, 60, ["one.jpg", "t\nwo.jpg"]))
    assert len(titled) == plain.height + 2 * HEADER
    for row in range(2):
        top = HEADER + row * (HEADER + 60 + GAP)
        assert (titled[top : top + HEADER] == 0).any()  # something is written there
        assert (titled[top + HEADER + 30, GAP : GAP + 60] == (0, 0, 255)).all()


def test_a_contact_sheet_holds_every_image():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    images = [Image.new("RGB", (30, 20), colour) for colour in colours]
    rows = [[("a", images[0]), ("b", images[1])], [("a", images[2]), ("b", images[3])]]
    found = {colour for _, colour in contact_sheet(rows, 60).getcolors(100_000)}
    assert set(colours) <= found


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_montage_shows_every_image(count):
    colours = [(200, 10 * n, 0) for n in range(count)]
    grid = montage([Image.new("RGB", (90, 60), colour) for colour in colours], 120)
    assert set(colours) <= {colour for _, colour in grid.getcolors(100_000)}
    assert max(grid.size) <= 120


def test_labels_are_a_palette_image_of_their_own_values(tmp_path):
    labels = np.arange(120, dtype=np.uint8).reshape(10, 12)
    save_image(label_image(labels), tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        colours = np.asarray(image.convert("RGB"))
    assert tuple(colours[0, 0]) == (0, 0, 0)
    assert tuple(colours[0, 3]) == label_colour(3)
    assert len({label_colour(label) for label in range(60)}) == 60


def test_an_overlay_gives_each_class_its_colour():
    labels = np.zeros((10, 12), np.uint8)
    labels[1:9, 1:5], labels[1:9, 6:10] = 1, 2
    pixels = np.asarray(overlay(Image.new("RGB", (12, 10), (100, 100, 100)), labels)).astype(int)
    for label, x in ((1, 3), (2, 8)):
        np.testing.assert_allclose(pixels[4, x], (100 + np.array(label_colour(label))) / 2, atol=1)
    assert (pixels[labels == 0] == 100).all()
    mask = labels == 1
    from_image = np.asarray(Image.fromarray(mask).convert("1"))  # its true values are 255
    of_kinds = [
        np.asarray(overlay(Image.new("RGB", (12, 10)), kind))
        for kind in (mask, mask.astype(np.uint8), from_image)
    ]
    np.testing.assert_array_equal(of_kinds[0], of_kinds[1])
    np.testing.assert_array_equal(of_kinds[0], of_kinds[2])


def test_a_tall_overlay_has_no_lines_between_its_bands():
    labels = np.zeros((3 * BAND + 7, 20), np.uint8)
    labels[5:-5, 5:15] = 1
    pixels = np.asarray(overlay(Image.new("RGB", (20, 3 * BAND + 7)), labels))
    inside = pixels[6:-6, 6:14]
    assert (inside == inside[0, 0]).all()
    assert (pixels[5:-5, [5, 14]] == 255).all()
