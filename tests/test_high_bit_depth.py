from io import BytesIO

import numpy as np
import pytest
import tifffile
from make_data import scene
from PIL import Image
from test_image_files import chunk, png

from kshot.errors import ImageError
from kshot.io.high_bit_depth import stretch, to_rgb
from kshot.io.images import read_image, read_image_bytes, read_size

LEVELS = np.random.default_rng(0).integers(200, 4000, (37, 53, 4))  # a 12-bit camera's


def expected(levels, seen=None):
    """What the documents say, in plain numbers: 0.1 % of the levels are black, and 0.1 % white."""
    ordered = np.sort(levels[seen] if seen is not None else levels, axis=None).astype(float)
    black, white = (ordered[round(part * (ordered.size - 1))] for part in (0.001, 0.999))
    return np.clip((levels - black) / (white - black), 0, 1) * 255


def tiff(array, **options):
    data = BytesIO()
    tifffile.imwrite(data, array, **options)
    return read_image_bytes(data.getvalue(), "image")


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i2", ">i2", "<i4", "<f4", ">f4"])
def test_grey_levels_of_tiffs_are_kept(kind, compression):
    levels = LEVELS[..., 0] - 1000 * (kind[1] != "u")
    read = tiff(levels.astype(kind), byteorder=kind[0], compression=compression)
    np.testing.assert_allclose(np.asarray(read)[..., 1], expected(levels), atol=0.51)
    assert len(np.unique(np.asarray(read))) >= 200


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "deflate"},
        {"compression": "deflate", "predictor": True},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"extrasamples": ["unspecified"]},
    ],
    ids=str,
)
def test_colour_levels_of_tiffs_are_kept(options):
    """Pillow alone gives the upper bytes, which are 16 levels of a 12-bit camera's."""
    colours = LEVELS[..., : 4 if "extrasamples" in options else 3].astype(
        options.get("byteorder", "<") + "u2"
    )
    read = np.asarray(tiff(colours, photometric="rgb", **options))
    np.testing.assert_allclose(read, expected(LEVELS[..., :3]), atol=0.51)


def test_levels_that_pillow_gets_wrong():
    large = LEVELS[..., 0].astype(np.uint32) * np.uint32(1_000_000)  # more than a signed integer holds
    np.testing.assert_allclose(np.asarray(tiff(large))[..., 0], expected(large), atol=0.51)
    small = (LEVELS[..., 0] // 32 - 60).astype(np.int8)
    np.testing.assert_allclose(np.asarray(tiff(small))[..., 0], expected(small), atol=0.51)
    inverted = np.asarray(tiff(LEVELS[..., 0].astype(np.uint16), photometric="miniswhite"))
    np.testing.assert_allclose(inverted[..., 0], expected(4000 - LEVELS[..., 0]), atol=0.51)
    apart = np.moveaxis(LEVELS[..., :3], -1, 0).astype(np.uint16)
    with pytest.raises(ImageError, match="its colours have 16 bits and lie in separate planes"):
        tiff(apart, photometric="rgb", planarconfig="separate")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_of_pngs_are_kept_and_what_alpha_hides_has_no_say(channels):
    levels = LEVELS[..., :channels].astype(">u2")
    hidden = np.zeros((37, 53), bool)
    hidden[5:9, 6:30] = True
    if channels == 4:
        levels[..., 3] = np.where(hidden, 0, 65535)
    levels[hidden, :3] = 65535  # would else be white, and all else dark
    colour = {1: 0, 3: 2, 4: 6}[channels]
    transparent = [] if channels == 4 else [chunk(b"tRNS", b"\xff\xff" * channels)]
    read = np.asarray(
        read_image_bytes(png(53, 37, 16, colour, [row.tobytes() for row in levels], *transparent), "")
    )
    assert (read[hidden] == 255).all()
    np.testing.assert_allclose(
        read[~hidden], expected(levels[..., :3], ~hidden)[~hidden] * np.ones(3), atol=0.51
    )


def test_not_a_number_is_black_and_infinities_are_ends():
    levels = np.linspace(0.2, 0.7, 2000, dtype=np.float32).reshape(40, 50)
    levels[0, :3] = np.nan, np.inf, -np.inf
    read = np.asarray(read_image(Image.fromarray(levels)))[..., 0]
    assert read[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(read[1:], expected(levels, np.isfinite(levels))[1:], atol=0.51)


def test_hot_pixels_do_not_darken_an_image_and_rare_ones_are_seen():
    levels = LEVELS[..., 0].astype(np.uint16)
    levels[3, 3] = 65535
    assert np.median(stretch(levels)) == pytest.approx(127, abs=8)
    rare = np.zeros((100, 100), np.uint16)
    rare[50, 50] = 7
    assert stretch(rare)[50, 50] == 255
    assert (stretch(np.full((4, 4), 9, np.uint16)) == 0).all()


def test_arrays_of_16_bits_are_read_as_files_of_16_bits_are():
    levels = LEVELS[..., :3].astype(np.uint16)
    np.testing.assert_array_equal(np.asarray(read_image(levels)), np.asarray(tiff(levels, photometric="rgb")))


@pytest.mark.parametrize("kind", ["LA", "RGBA", "P", "RGB"])
def test_what_alpha_hides_never_shows(tmp_path, kind):
    """Whatever the colour below it; and what is half transparent is half white."""
    read = []
    for secret in (0, 90):
        pixels = np.full((6, 8, 4), (200, 200, 200, 255), np.uint8)
        pixels[:2] = (secret, secret, secret, 0)
        pixels[2:4, :, 3] = 102
        if kind == "P":
            image = Image.fromarray(
                np.repeat([[0], [1], [2]], [2, 2, 2], axis=0).astype(np.uint8).repeat(8, 1)
            )
            image = image.convert("P")
            image.putpalette([secret] * 3 + [200] * 6)
            image.save(tmp_path / "a.png", transparency=bytes([0, 102, 255]))
        elif kind == "RGB":
            pixels[2:4, :, :3] = 217
            Image.fromarray(pixels[..., :3].copy()).save(tmp_path / "a.png", transparency=(secret,) * 3)
        else:
            Image.fromarray(pixels).convert(kind).save(tmp_path / "a.png")
        for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
            read.append(np.asarray(read_image(source)))
    for found in read:
        wanted = [255] * 2 + [217 if kind == "RGB" else 233] * 2 + [200] * 2  # 233 = 0.4 * 200 + 0.6 * 255
        np.testing.assert_allclose(found, np.array(wanted)[:, None, None] * np.ones((1, 8, 3)), atol=1)


def test_cmyk_is_ink_on_paper(tmp_path):
    inks = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    paper = 1 - inks / 255
    found = np.asarray(read_image(tmp_path / "a.tif"))
    np.testing.assert_allclose(found, 255 * paper[..., :3] * paper[..., 3:], atol=2)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_images_are_their_colours(mode):
    image = scene()[0].convert(mode)
    if mode == "P":
        colours = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    else:
        colours = np.repeat(np.asarray(image)[..., None] * (255 if mode == "1" else 1), 3, axis=2)
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), colours)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_tiffs_are_upright_and_their_size_is_known(tmp_path, orientation):
    """Of deep colours both halves are turned."""
    upright = LEVELS[..., :3].astype(np.uint16)
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    path = tmp_path / "turned.tif"
    tag = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(path, np.ascontiguousarray(turn[orientation](upright)), photometric="rgb", extratags=tag)
    np.testing.assert_allclose(np.asarray(read_image(path)), expected(upright), atol=0.51)
    assert read_size(path) == (37, 53)
