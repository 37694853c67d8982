import os
import re
from io import BytesIO

import numpy as np
import pytest
from make_data import full_after
from PIL import Image

from kshot.errors import DataError, WriteError
from kshot.io.files import append_text, atomic_write, encode_image, read_json, save_image, write_text


def test_an_encoded_image_is_a_file_of_its_kind():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    with Image.open(BytesIO(encode_image(noise, "PNG"))) as read:
        assert (read.format, np.asarray(read).tobytes()) == ("PNG", noise.tobytes())
    with Image.open(BytesIO(encode_image(noise, "JPEG", quality=85))) as read:
        assert (read.format, read.size) == ("JPEG", noise.size)
    assert len(encode_image(noise, "JPEG", quality=20)) < len(encode_image(noise, "JPEG", quality=85))


def test_a_failed_write_leaves_the_old_file_and_no_traces(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_and_fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert path.read_text() == "old"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "result.txt", []

    def sync(descriptor):
        assert not path.exists()
        synced.append(os.pread(descriptor, 100, 0))

    monkeypatch.setattr(os, "fsync", sync)
    write_text("new", path)
    assert synced == [b"new"]
    assert path.read_text() == "new"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("room", [0, 1, 6000, -1])  # -1: for all but a byte, which Pillow overlooks
def test_a_full_disk_leaves_the_old_file_and_the_error_has_the_path(tmp_path, suffix, room):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    path = tmp_path / f"image.{suffix}"
    save_image(image, path)
    size = path.stat().st_size
    path.write_text("old")
    said = re.escape(f"{path} cannot be written: File too large. Free some space there")
    with full_after(size - 1 if room < 0 else room), pytest.raises(WriteError, match=said):
        save_image(image, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_appending_on_a_full_disk_has_the_path(tmp_path):
    append_text("old\n", tmp_path / "log")
    said = re.escape(f"{tmp_path / 'log'} cannot be written: File too large. Free")
    with full_after(5), pytest.raises(WriteError, match=said):
        append_text("new\n", tmp_path / "log")
    assert (tmp_path / "log").read_text().startswith("old\n")


def test_other_system_errors_are_unchanged(tmp_path):
    with pytest.raises(OSError, match="name too long") as caught:
        write_text("", tmp_path / ("a" * 300))
    assert not isinstance(caught.value, WriteError)


def test_a_text_may_hold_the_name_of_a_file_that_is_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    write_text(f"{name}\n", tmp_path / "names")
    assert (tmp_path / "names").read_bytes() == b"caf\xe9.jpg\n"


def test_a_json_file_that_cannot_be_read_is_named(tmp_path):
    for content, reason in (
        (b"{", "is no JSON file"),
        (b"\xff", "is no JSON file"),
        (None, "cannot be read"),
    ):
        path = tmp_path / "settings.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=rf"settings\.json {reason}"):
            read_json(path)
