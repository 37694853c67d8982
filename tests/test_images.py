import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.robustness.image_modes import ORIENTATION, UNDO
from kshot.errors import ImageError, MaskError
from kshot.io.images import list_images, read_image, read_mask


def gradient(width=30, height=20):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x * 8, y * 12, (x + y) * 5], axis=-1).astype(np.uint8)


def test_every_kind_of_image_gives_the_same_image(tmp_path):
    pixels = gradient()
    Image.fromarray(pixels).save(tmp_path / "image.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    sources = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(pixels),
        pixels,
        tensor,
        tensor / 255,
    ]
    for source in sources:
        image = read_image(source)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_are_undone_for_images_and_masks(tmp_path, orientation):
    upright = Image.fromarray(gradient())
    stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "image.png")), np.asarray(upright))
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[2:5, 3:20] = 1
    drawn = Image.fromarray(mask)
    (drawn.transpose(UNDO[orientation]) if orientation in UNDO else drawn).save(
        tmp_path / "mask.png", exif=exif
    )
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", (20, 30)), mask == 1)
    np.testing.assert_array_equal(read_mask(drawn, (20, 30)), mask == 1)  # drawn on the upright image
    if orientation > 4:
        with pytest.raises(MaskError, match=r"20 x 30 pixels.*as stored, which lies on its side \(EXIF\)"):
            read_mask(drawn.transpose(UNDO[orientation]), (20, 30))


def test_sixteen_bits_keep_their_grey_levels():
    levels = np.linspace(0, 65535, 300).astype(np.uint16).reshape(15, 20)
    assert len(np.unique(np.asarray(read_image(Image.fromarray(levels))))) >= 200


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_modes_become_rgb(mode):
    assert read_image(Image.new(mode, (4, 3))).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "not an image"), (b"hello", "not an image"), (None, "There is no file")],
)
def test_files_that_are_no_images_are_named(tmp_path, content, reason):
    path = tmp_path / "photo.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert "photo.jpg" in str(caught.value)


def test_a_truncated_image_is_refused_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    whole = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="cannot be read as an image"):
        read_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"must be \(H, W, 3\)"),
        (np.full((4, 4, 3), 7, np.float32), r"outside \[0, 1\]: 7 to 7"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((0, 4, 3), np.uint8), "not empty"),
        (torch.zeros(4, 4), r"must be \(3, H, W\)"),
        (torch.full((3, 4, 4), 1.5), r"outside \[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), r"outside \[0, 1\]"),
        (Image.new("F", (4, 4), float("nan")), "none of its levels is a number"),
    ],
)
def test_arrays_that_are_no_images_are_refused(source, reason):
    with pytest.raises(ImageError, match=reason):
        read_image(source)


def disc():
    y, x = np.mgrid[:20, :30]
    return (x - 12) ** 2 + (y - 9) ** 2 < 36


@pytest.mark.parametrize("value", [1, 7, 128, 255])
@pytest.mark.parametrize("kind", ["array", "tensor", "L", "P", "file"])
def test_one_object_value_is_the_object(tmp_path, value, kind):
    array = np.where(disc(), value, 0).astype(np.uint8)
    source = {"array": array, "tensor": torch.from_numpy(array), "L": Image.fromarray(array)}.get(kind)
    if source is None:
        source = Image.new("P", (30, 20))
        source.putpalette([c for n in range(256) for c in (n, 255 - n, 90)])
        source.putdata(array.ravel().tolist())
    if kind == "file":
        source.save(tmp_path / "mask.png")
        source = tmp_path / "mask.png"
    np.testing.assert_array_equal(read_mask(source, (20, 30)), disc())


def test_bools_and_one_bit_images_are_masks():
    np.testing.assert_array_equal(read_mask(disc(), (20, 30)), disc())
    np.testing.assert_array_equal(read_mask(Image.fromarray(disc()), (20, 30)), disc())


def test_255_beside_an_object_is_ignored():
    values = np.where(disc(), 3, 0).astype(np.uint8)
    values[0] = 255
    np.testing.assert_array_equal(read_mask(values, (20, 30)), disc())


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((20, 30), np.uint8), "is empty"),
        (np.ones((30, 20), np.uint8), "20 x 30 pixels, but its image is 30 x 20"),
        (np.arange(600, dtype=np.uint8).reshape(20, 30) % 3, r"2 object values \(1, 2\)"),
        (np.arange(600).reshape(20, 30) % 250, r"249 object values \(1, 2, 3, 4, 5 …\).*threshold it"),
        (np.full((20, 30), 0.5), "bools or integers"),
        (np.ones((20, 30, 5), np.uint8), "bools or integers"),
        (np.full((20, 30), np.nan), "no numbers"),
        (Image.new("RGB", (30, 20), "red"), r"colours such as \(255, 0, 0\)"),
        (Image.new("RGBA", (30, 20), (0, 0, 0, 9)), "is empty"),
        (Image.new("CMYK", (30, 20)), "mode CMYK"),
    ],
)
def test_masks_that_are_ambiguous_are_refused(mask, reason):
    with pytest.raises(MaskError, match=reason):
        read_mask(mask, (20, 30))


def test_folders_are_listed_in_order_with_their_structure(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    elsewhere = tmp_path / "results"
    found = list_images([tmp_path / "photos", tmp_path / "photos" / "b.png"], elsewhere)
    assert [str(relative) for _, relative in found] == ["a.JPG", "b.png", "deep/c.webp", "b.png"]
    with pytest.raises(ImageError, match="holds no images"):
        list_images([tmp_path / "empty"], elsewhere)
    with pytest.raises(ImageError, match="no file or folder"):
        list_images([tmp_path / "nowhere"], elsewhere)


def test_results_are_passed_over_in_folders_but_never_when_named(tmp_path):
    results = tmp_path / "photos" / "out"
    results.mkdir(parents=True)
    (results / "one_mask.png").touch()
    with pytest.raises(ImageError, match="holds no images"):
        list_images([tmp_path / "photos"], results)
    (tmp_path / "photos" / "one.png").touch()
    found = list_images([tmp_path / "photos", results / "one_mask.png"], results)
    assert [str(relative) for _, relative in found] == ["one.png", "one_mask.png"]
