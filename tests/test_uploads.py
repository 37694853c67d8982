from io import BytesIO

import numpy as np
import pytest
from make_data import scene, two_things
from PIL import Image

from kshot.errors import ImageError, MaskError
from kshot.io.overlays import label_image, mask_image
from kshot.web.uploads import decode_image, decode_labels


def encoded(image, kind="PNG", **options):
    data = BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_images_are_decoded(kind):
    image = scene()[0]
    found = decode_image(encoded(image, kind), 10**6)
    assert (found.mode, found.size) == ("RGB", image.size)


def test_an_image_is_turned_upright():
    image = scene()[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    found = decode_image(encoded(image, "JPEG", exif=exif), 10**6)
    assert found.size == image.size[::-1]


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_other_files_are_refused(data):
    with pytest.raises(ImageError, match="not an image in a format that can be read"):
        decode_image(data, 10**6)


def test_other_formats_are_not_even_tried():
    with pytest.raises(ImageError, match="not an image"):
        decode_image(encoded(scene()[0], "PPM"), 10**6)


def test_a_truncated_file_is_refused():
    data = encoded(scene()[0])
    with pytest.raises(ImageError, match="cannot be read as an image"):
        decode_image(data[: len(data) // 2], 10**6)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="120 x 90 pixels; at most 10,000"):
        decode_image(encoded(scene()[0]), 10_000)


def test_a_mask_of_one_class_may_have_any_value():
    mask = scene()[1]
    for image in (mask_image(mask), Image.fromarray(mask), Image.fromarray(mask.astype(np.uint8) * 7)):
        labels = decode_labels(encoded(image), mask.shape, [3])
        np.testing.assert_array_equal(labels, mask * 3)


def test_a_mask_of_several_classes_has_their_values():
    labels = two_things()[1]
    found = decode_labels(encoded(label_image(labels)), labels.shape, [2, 1, 9])
    np.testing.assert_array_equal(found, labels)
    with pytest.raises(MaskError, match="which no class has"):
        decode_labels(encoded(label_image(labels)), labels.shape, [1, 3])


def test_unusable_masks_are_refused():
    empty = Image.new("L", (120, 90))
    for values in ([1], [1, 2]):
        with pytest.raises(MaskError, match="is empty"):
            decode_labels(encoded(empty), (90, 120), values)
    with pytest.raises(MaskError, match="Give a mask of the image's own size"):
        decode_labels(encoded(Image.new("L", (60, 90), 1)), (90, 120), [1])
    with pytest.raises(MaskError, match="colours such as"):
        decode_labels(encoded(scene()[0]), (90, 120), [1])
