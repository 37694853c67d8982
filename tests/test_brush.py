import json
from pathlib import Path

import numpy as np
import pytest
from make_annotations import packed
from test_rasterize import decode_run_lengths

from kshot.annotations.brush import decode_brush, encode_brush
from kshot.errors import MaskError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "label_studio_brush.json").read_text())


@pytest.mark.parametrize("stroke", GOLDEN["strokes"], ids=["mask", "soft"])
def test_what_label_studios_own_encoder_packed_is_unpacked(stroke):
    size = GOLDEN["height"], GOLDEN["width"]
    values = decode_brush(stroke["rle"], size[0] * size[1] * 4).reshape(-1, 4)
    np.testing.assert_array_equal(values[:, 3] > 0, decode_run_lengths(stroke["counts"], size[0] * size[1]))


def test_different_values_in_one_piece_are_unpacked():
    bits = f"{5:032b}{7:05b}" + f"{2:04b}" * 4 + "000" + f"{2:03b}" + "".join(f"{v:08b}" for v in (7, 255, 0))
    bits += "110" + f"{1:03b}" + f"{9:08b}"
    bits += "0" * (-len(bits) % 8)
    stream = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    assert decode_brush(stream, 5).tolist() == [7, 255, 0, 9, 9]


@pytest.mark.parametrize("seed", range(3))
def test_random_values_come_back(seed):
    values = np.random.default_rng(seed).integers(0, 3, 700).repeat(3).astype(np.uint8)
    np.testing.assert_array_equal(decode_brush(packed(values), values.size), values)


def test_damaged_streams_are_refused():
    good = packed(np.zeros(400, dtype=np.uint8))
    for stream, reason in (
        ([], "no packed bytes"),
        ([1, 2, 3], "no packed bytes"),
        ([*good, 256], "no packed bytes"),
        ([-1, *good], "no packed bytes"),
        (good[:-2], "end too early"),
        (packed(np.zeros(300, dtype=np.uint8)), "have 300 values, but their image 400"),
        ([*good[:7], *[255] * 20], "end too early, or late"),
    ):
        with pytest.raises(MaskError, match=reason):
            decode_brush(stream, 400)


def row_runs(mask):
    changes = np.flatnonzero(np.diff(mask.ravel().astype(np.int8), prepend=0))
    return np.diff(changes, prepend=0, append=mask.size).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 200)])
def test_brush_strokes_are_what_the_reader_unpacks(shape):
    for mask in (np.zeros(shape, bool), np.ones(shape, bool), np.random.default_rng(0).random(shape) > 0.5):
        values = decode_brush(encode_brush(row_runs(mask)), 4 * mask.size)
        np.testing.assert_array_equal(values.reshape(*shape, 4), np.repeat(255 * mask, 4).reshape(*shape, 4))
