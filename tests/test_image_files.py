import struct
import threading
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from make_data import scene
from PIL import Image, features

from kshot.errors import ImageError, KshotError, MaskError
from kshot.io.image_files import MAX_PIXELS, open_checked
from kshot.io.images import read_image, read_image_bytes, read_mask

FORMATS = {
    "jpg": {},
    "progressive.jpg": {"progressive": True},
    "png": {},
    "webp": {"lossless": True},
    "bmp": {},
    "gif": {},
    "raw.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
}
if features.check("avif"):
    FORMATS["avif"] = {}


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour, rows, *chunks):
    """Write a PNG by hand: rows are bytes, chunks come before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def encoded(name):
    data, kind = BytesIO(), {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name)
    scene(width=60, height=45)[0].save(data, kind, **FORMATS[name])
    return data.getvalue()


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    bomb = png(50_000, 50_000, 8, 0, [bytes(50_001)])
    (tmp_path / "bomb.png").write_bytes(bomb)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    said = r"bomb.png' is 50000 x 50000 pixels; at most 200,000,000 .* KSHOT_MAX_PIXELS=2500000000"
    with pytest.raises(ImageError, match=said):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(MaskError, match=said):
        read_mask(tmp_path / "bomb.png", (50_000, 50_000))


def icon(image):
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 8, len(image), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + image


def mac_icon(image):
    body = b"ic10" + struct.pack(">I", 8 + len(image)) + image
    return b"icns" + struct.pack(">I", 8 + len(body)) + body


@pytest.mark.parametrize("pack", [icon, mac_icon])
def test_a_bomb_within_an_image_is_refused_before_it_is_decoded(pack, monkeypatch):
    bomb = pack(png(50_000, 50_000, 8, 0, [bytes(50_001)]))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"The image (is not|cannot be read as) an image"):
        read_image_bytes(bomb, "The image")


def test_a_program_is_no_image(tmp_path):
    scene()[0].save(tmp_path / "program.eps")
    with pytest.raises(ImageError, match="not an image in a format that can be read"):
        read_image(tmp_path / "program.eps")


def test_the_limit_can_be_set(tmp_path, monkeypatch):
    scene()[0].save(tmp_path / "small.png")
    monkeypatch.setenv("KSHOT_MAX_PIXELS", "10799")
    with pytest.raises(ImageError, match="120 x 90 pixels; at most 10,799"):
        read_image(tmp_path / "small.png")
    monkeypatch.setenv("KSHOT_MAX_PIXELS", "10800")
    assert read_image(tmp_path / "small.png").size == (120, 90)
    for wrong in ("many", "-1", "0", ""):
        monkeypatch.setenv("KSHOT_MAX_PIXELS", wrong)
        with pytest.raises(KshotError, match="must be a number of pixels"):
            read_image(tmp_path / "small.png")


def test_large_images_are_read_without_a_warning_and_pillows_limit_stays(tmp_path, monkeypatch):
    Image.new("1", (10_000, 9_000), 1).save(tmp_path / "large.png")  # more than Pillow warns of
    before = Image.MAX_IMAGE_PIXELS
    with open_checked(tmp_path / "large.png", ImageError, decode=False) as image:
        assert image.width * image.height > before
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a small one stands for those above its second limit
    scene()[0].save(tmp_path / "photo.png")
    threads = [threading.Thread(target=read_image, args=(tmp_path / "photo.png",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100
    assert MAX_PIXELS > 16_320 * 12_240  # a telephone's 200 megapixels


@pytest.mark.parametrize("kind", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_images_is_read_with_a_warning(tmp_path, kind):
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"two.{kind}", save_all=True, append_images=[second])
    with pytest.warns(UserWarning, match=rf"two.{kind}' holds 2 images; only the first is read"):
        found = np.asarray(read_image(tmp_path / f"two.{kind}"))
    np.testing.assert_allclose(found, np.broadcast_to((255, 0, 0), (6, 8, 3)), atol=3)  # WebP loses a little


def test_a_phones_preview_is_no_reason_to_warn(tmp_path):
    image = scene()[0]
    image.save(tmp_path / "photo.mpo", save_all=True, append_images=[image.resize((12, 9))])
    assert read_image(tmp_path / "photo.mpo").size == image.size


def test_a_tiff_that_pillow_does_not_know_is_called_one(tmp_path):
    scene()[0].convert("L").save(tmp_path / "odd.tif")
    content = (tmp_path / "odd.tif").read_bytes()
    depth = struct.pack("<HHIHH", 258, 3, 1, 8, 0)
    assert depth in content
    (tmp_path / "odd.tif").write_bytes(content.replace(depth, struct.pack("<HHIHH", 258, 3, 1, 64, 0)))
    with pytest.raises(ImageError, match="is a TIFF whose pixels are of a kind that cannot be read"):
        read_image(tmp_path / "odd.tif")


def read(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a flipped bit may make several images of one
        return np.asarray(read_image_bytes(data, "The image"))


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_broken_files_are_read_whole_or_refused(count):
    """Cut files, and files with flipped bits, where a format keeps sums of its pixels."""
    rng = np.random.default_rng(count)
    files = {name: encoded(name) for name in FORMATS}
    whole = {name: read(data) for name, data in files.items()}
    refused = []
    for index in range(count):
        name = list(FORMATS)[index % len(FORMATS)]
        broken = bytearray(files[name])
        is_cut = rng.random() < 0.5
        if is_cut:
            del broken[rng.integers(len(broken)) :]
        else:
            for place in rng.integers(len(broken), size=rng.integers(1, 4)):
                broken[place] ^= 1 << rng.integers(8)
        try:
            found = read(bytes(broken))
        except ImageError as error:
            refused.append(str(error))
        else:
            if is_cut or name == "png":  # what is gone may be a file's end, but no pixel
                np.testing.assert_array_equal(found, whole[name])
    assert len(refused) > count / 2
    assert all(reason.startswith("The image ") for reason in refused)
