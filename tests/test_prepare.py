import gzip
import hashlib
import json
import shutil
import sys
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kshot.data import prepare
from kshot.data.prepare import SBD_ARCHIVE, SBD_MASKS, VOC_ARCHIVE, VOC_IMAGES, VOC_MASKS, prepare_pascal
from kshot.errors import DataError

BOTH, VOC_ONLY, SBD_ONLY, SBD_TOO, NEITHER = (
    "2007_000032",
    "2007_000039",
    "2008_000002",
    "2008_000003",
    "2008_000007",
)
"""Photographs, named after who has a mask of them."""

SIZES = {BOTH: (30, 40), VOC_ONLY: (40, 30), SBD_ONLY: (30, 40), SBD_TOO: (28, 41), NEITHER: (30, 40)}


def jpeg(name):
    pixels = np.random.default_rng(int(name[-3:])).integers(0, 256, (*SIZES[name], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def values(name, label, border=None):
    """Make a mask of one object, with a border around it if one is given."""
    mask = np.zeros(SIZES[name], np.uint8)
    if border is not None:
        mask[4:21, 4:21] = border
    mask[5:20, 5:20] = label
    return mask


def png(mask):
    image, buffer = Image.fromarray(mask), BytesIO()
    if image.mode == "L":
        image.putpalette([level for index in range(256) for level in (index, 0, 0)])
    image.save(buffer, "PNG")
    return buffer.getvalue()


def mat(mask, variable="GTcls", field="Segmentation"):
    buffer = BytesIO()
    savemat(buffer, {variable: {field: mask, "CategoriesPresent": np.unique(mask)}}, do_compression=True)
    return buffer.getvalue()


def voc_members():
    return {
        # Masks first: a reader can't rely on the order.
        f"{VOC_MASKS}/{BOTH}.png": png(values(BOTH, 1, border=255)),
        f"{VOC_MASKS}/{VOC_ONLY}.png": png(values(VOC_ONLY, 20, border=255)),
        **{f"{VOC_IMAGES}/{name}.jpg": jpeg(name) for name in SIZES},
        "../evil.png": png(values(BOTH, 1)),
        f"{VOC_MASKS}/../../../../evil.png": png(values(BOTH, 1)),
        f"{VOC_MASKS}/...png": png(values(BOTH, 1)),
        f"{VOC_IMAGES}/._{BOTH}.jpg": b"not for us",
        "VOCdevkit/VOC2012/Annotations/2007_000032.xml": b"<annotation/>",
        "VOCdevkit/VOC2012/SegmentationObject/2007_000032.png": png(values(BOTH, 7)),
    }


def sbd_members():
    return {
        "benchmark_RELEASE/dataset/img/2008_000002.jpg": b"not for us",
        f"{SBD_MASKS}/{BOTH}.mat": mat(values(BOTH, 2)),
        f"{SBD_MASKS}/{SBD_ONLY}.mat": mat(values(SBD_ONLY, 15)),
        f"{SBD_MASKS}/{SBD_TOO}.mat": mat(values(SBD_TOO, 20)),
        "benchmark_RELEASE/dataset/inst/2008_000002.mat": b"not for us",
        "../evil.mat": mat(values(BOTH, 3)),
        "benchmark_RELEASE/dataset/train.txt": b"2008_000002\n",
    }


def write_archives(folder, changes=None):
    """Write both archives in their true layout; `changes` replaces a member's bytes, None drops it."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = changes or {}
    for archive, mode, members in (
        (VOC_ARCHIVE, "w", voc_members()),
        (SBD_ARCHIVE, "w:gz", sbd_members()),
    ):
        with tarfile.open(folder / archive.name, mode) as tar:
            for name, contents in members.items():
                contents = changes.get(name, contents)
                if contents is not None:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(contents)
                    tar.addfile(entry, BytesIO(contents))
            if archive is VOC_ARCHIVE:
                link = tarfile.TarInfo(f"{VOC_IMAGES}/link.jpg")
                link.type, link.linkname = tarfile.SYMTYPE, "../../../evil.jpg"
                tar.addfile(link)


@pytest.fixture
def root(tmp_path):
    write_archives(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def make_official(monkeypatch):
    """Return a function that makes archives count as the official ones, at file URLs."""

    def declare(folder, **others):
        for constant in ("VOC_ARCHIVE", "SBD_ARCHIVE"):
            archive = getattr(prepare, constant)
            path = folder / archive.name
            md5 = hashlib.md5(path.read_bytes()).hexdigest()
            monkeypatch.setattr(
                prepare, constant, replace(archive, **{"url": path.as_uri(), "md5": md5} | others)
            )

    return declare


def silent(line):
    pass


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def mask_of(root, name):
    with Image.open(root / "VOC2012" / "SegmentationClassAug" / f"{name}.png") as image:
        assert image.mode == "P"
        return np.array(image)


def error_of(root):
    with pytest.raises(DataError) as caught:
        prepare_pascal(root, report=silent)
    assert not (root / "VOC2012" / "PREPARED.json").exists()
    return str(caught.value)


def test_images_are_copied_byte_for_byte_and_nothing_else_is_written(root):
    prepared = prepare_pascal(root, report=silent)
    assert prepared.folder == root / "VOC2012"
    assert (prepared.num_images, prepared.num_voc_masks, prepared.num_sbd_masks) == (5, 2, 2)
    written = files_in(prepared.folder)
    assert {name: written.pop(f"JPEGImages/{name}.jpg") for name in SIZES} == {n: jpeg(n) for n in SIZES}
    masks = {f"SegmentationClassAug/{name}.png" for name in SIZES if name != NEITHER}
    assert written.keys() == masks | {"PREPARED.json"}
    archives = {VOC_ARCHIVE.name, SBD_ARCHIVE.name}
    assert {path.name for path in root.iterdir()} == archives | {"VOC2012"}
    assert list(root.parent.iterdir()) == [root]


def test_vocs_own_mask_wins_and_sbd_provides_the_others(root):
    prepare_pascal(root, report=silent)
    for name, label, border in [
        (BOTH, 1, 255),
        (VOC_ONLY, 20, 255),
        (SBD_ONLY, 15, None),
        (SBD_TOO, 20, None),
    ]:
        np.testing.assert_array_equal(mask_of(root, name), values(name, label, border))


@pytest.mark.parametrize("name", [BOTH, SBD_ONLY])
def test_masks_have_vocs_colours(root, name):
    prepare_pascal(root, report=silent)
    with Image.open(root / "VOC2012" / "SegmentationClassAug" / f"{name}.png") as image:
        colours = np.reshape(image.getpalette(), (256, 3))
    # From VOC's development kit.
    expected = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    expected |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(colours[index].tolist()) for index in expected} == expected
    assert len(np.unique(colours, axis=0)) == 256


def test_archives_may_lie_elsewhere(tmp_path):
    write_archives(tmp_path / "archives")
    prepare_pascal(tmp_path / "out", tmp_path / "archives", report=silent)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["VOC2012"]
    assert len(list((tmp_path / "archives").iterdir())) == 2


def test_only_unofficial_archives_cause_a_warning(root, make_official):
    lines = []
    prepared = prepare_pascal(root, report=lines.append)
    for archive, warning in zip((VOC_ARCHIVE, SBD_ARCHIVE), prepared.warnings, strict=True):
        found = hashlib.md5((root / archive.name).read_bytes()).hexdigest()
        for part in (str(root / archive.name), found, archive.md5, archive.url):
            assert part in warning
        assert f"Warning: {warning}" in lines
    lines.clear()
    make_official(root)
    assert prepare_pascal(root, report=lines.append).warnings == ()
    assert not any("Warning" in line for line in lines)


def test_the_note_says_what_the_folder_was_built_from(root):
    prepare_pascal(root, report=silent)
    note = json.loads((root / "VOC2012" / "PREPARED.json").read_text())
    assert note == {
        "archives": [
            {
                "name": archive.name,
                "url": archive.url,
                "md5": hashlib.md5((root / archive.name).read_bytes()).hexdigest(),
                "official_md5": archive.md5,
            }
            for archive in (VOC_ARCHIVE, SBD_ARCHIVE)
        ],
        "num_images": 5,
        "num_voc_masks": 2,
        "num_sbd_masks": 2,
    }


def test_a_second_run_changes_nothing_and_restores_changed_files(root):
    folder = root / "VOC2012"
    first = prepare_pascal(root, report=silent)
    written = files_in(folder)
    untouched = folder / "JPEGImages" / f"{BOTH}.jpg"
    inode = untouched.stat().st_ino
    (folder / "SegmentationClassAug" / f"{BOTH}.png").write_bytes(png(values(BOTH, 9)))
    (folder / "JPEGImages" / f"{NEITHER}.jpg").write_bytes(b"")
    assert prepare_pascal(root, report=silent) == first
    assert files_in(folder) == written
    assert untouched.stat().st_ino == inode


@pytest.mark.parametrize("num_written", range(10))
def test_a_run_after_an_interrupted_one_is_complete(root, monkeypatch, num_written):
    folder = root / "VOC2012"
    prepare_pascal(root, root, report=silent)
    complete = files_in(folder)
    for path in complete:
        (folder / path).unlink()
    count, write = iter(range(100)), prepare._write

    def write_and_stop(path, contents):
        if next(count) == num_written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".kshot-0123{path.suffix}").write_bytes(
                contents[:20]
            )  # as a killed run leaves it
            raise KeyboardInterrupt
        write(path, contents)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_pascal(root, report=silent)
    assert not (folder / "PREPARED.json").exists()
    prepare_pascal(root, report=silent)
    assert files_in(folder) == complete


BAD_MEMBERS = {
    f"{VOC_MASKS}/{BOTH}.png": (
        png(values(BOTH, 21, border=255)),
        "contains 21; allowed are 0 to 20 and 255",
    ),
    f"{VOC_MASKS}/{VOC_ONLY}.png": (png(values(BOTH, 1)), "is 40 x 30 pixels, but its image is 30 x 40"),
    f"{SBD_MASKS}/{SBD_ONLY}.mat": (mat(values(SBD_ONLY, 255)), "contains 255; allowed are 0 to 20"),
    f"{SBD_MASKS}/{SBD_TOO}.mat": (mat(values(BOTH, 3)), "is 40 x 30 pixels, but its image is 41 x 28"),
}


def test_one_error_names_every_bad_file_and_the_good_ones_are_written(tmp_path):
    write_archives(tmp_path, {name: contents for name, (contents, _) in BAD_MEMBERS.items()})
    lines = error_of(tmp_path).splitlines()
    for name, (_, reason) in BAD_MEMBERS.items():
        assert len([line for line in lines if f"{name}: the mask {reason}" in line]) == 1
    assert len(lines) == 1 + len(BAD_MEMBERS) + 2
    for line, archive in zip(lines[-2:], (VOC_ARCHIVE, SBD_ARCHIVE), strict=True):
        assert "Delete it and run this again" in line
        assert archive.url in line
    assert {Path(path).parts[0] for path in files_in(tmp_path / "VOC2012")} == {"JPEGImages"}


@pytest.mark.parametrize(
    ("name", "contents", "reason"),
    [
        (f"{SBD_MASKS}/{SBD_ONLY}.mat", mat(values(SBD_ONLY, 1), variable="GTinst"), "no GTcls.Segmentation"),
        (
            f"{SBD_MASKS}/{SBD_ONLY}.mat",
            mat(values(SBD_ONLY, 1), field="Boundaries"),
            "no GTcls.Segmentation",
        ),
        (f"{SBD_MASKS}/{SBD_ONLY}.mat", mat(values(SBD_ONLY, 1) / 2), r"type float64; it must be \(H, W\)"),
        (f"{SBD_MASKS}/{SBD_ONLY}.mat", mat(values(SBD_ONLY, 1))[:-20], "not a MATLAB file that can be read"),
        (f"{SBD_MASKS}/{SBD_ONLY}.mat", b"", "not a MATLAB file that can be read"),
        (f"{VOC_MASKS}/{BOTH}.png", png(values(BOTH, 1))[:-30], "not a complete PNG"),
        (f"{VOC_MASKS}/{BOTH}.png", png(np.zeros((30, 40, 3), np.uint8)), "mode RGB"),
        (f"{VOC_IMAGES}/{BOTH}.jpg", b"not an image", "not a JPEG"),
        (f"{VOC_IMAGES}/{VOC_ONLY}.jpg", None, "there is no image"),
    ],
)
def test_one_bad_file_is_one_line(tmp_path, name, contents, reason):
    write_archives(tmp_path, {name: contents})
    with pytest.raises(DataError, match=reason) as caught:
        prepare_pascal(tmp_path, report=silent)
    assert len(str(caught.value).splitlines()) == 3
    assert Path(name).stem in str(caught.value)
    # SBD's mask does not step in for VOC's bad one.
    masks = {path.stem for path in (tmp_path / "VOC2012" / "SegmentationClassAug").iterdir()}
    assert masks == {BOTH, VOC_ONLY, SBD_ONLY, SBD_TOO} - {Path(name).stem}
    write_archives(tmp_path)
    prepare_pascal(tmp_path, report=silent)


def test_bad_files_of_official_archives_are_kshots_fault(tmp_path, make_official):
    write_archives(tmp_path, {f"{VOC_MASKS}/{BOTH}.png": b""})
    make_official(tmp_path)
    error = error_of(tmp_path)
    assert "please report it" in error
    assert "Delete" not in error


def test_an_absent_folder_is_named(tmp_path):
    write_archives(tmp_path, {name: None for name in voc_members() if name.startswith(VOC_MASKS)})
    assert f"{VOC_ARCHIVE.name} has no folder {VOC_MASKS} with .png files" in error_of(tmp_path)
    write_archives(tmp_path, {name: None for name in sbd_members()})
    assert f"{SBD_ARCHIVE.name} has no folder {SBD_MASKS} with .mat files" in error_of(tmp_path)


def damages():
    """Return ways to cut or damage the first archive, a plain tar, at its third image."""

    def at(shift):
        def cut(path):
            with tarfile.open(path) as tar:
                member = tar.getmember(f"{VOC_IMAGES}/{SBD_ONLY}.jpg")
            return path.read_bytes()[: member.offset + shift]

        return cut

    def broken_header(path):
        good = path.read_bytes()
        start = len(at(0)(path))
        return good[:start] + b"\xff" * 8 + good[start + 8 :]

    return {
        "between two files": at(0),
        "in a header": at(100),
        "after a header": at(512),
        "in a file": at(700),
        "broken header": broken_header,
        "no tar": lambda path: b"<html>Not found</html>",
        "empty": lambda path: b"",
    }


@pytest.mark.parametrize("damage", damages().values(), ids=damages().keys())
def test_a_damaged_tar_is_one_line_and_is_read_up_to_the_damage(root, damage):
    prepare_pascal(root, report=silent)  # whose note must go
    shutil.rmtree(root / "VOC2012" / "SegmentationClassAug")
    path = root / VOC_ARCHIVE.name
    path.write_bytes(damage(path))
    lines = error_of(root).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith(f"- {VOC_ARCHIVE.name} cannot be read to its end: ")
    masks = {path.stem for path in (root / "VOC2012").glob("SegmentationClassAug/*")}
    assert masks == ({BOTH, VOC_ONLY} if len(path.read_bytes()) > 512 else set())
    write_archives(root)
    prepare_pascal(root, report=silent)


@pytest.mark.parametrize("damage", ["cut", "short", "garbled", "checksum", "not gzip"])
def test_a_damaged_tgz_is_one_line(root, damage):
    path = root / SBD_ARCHIVE.name
    good = path.read_bytes()
    damaged = {
        "cut": good[: len(good) // 2],
        "short": good[:-3],
        "garbled": good[:400] + b"\xff" * 100 + good[500:],
        "checksum": good[:-8] + bytes(4) + good[-4:],
        "not gzip": gzip.decompress(good),
    }
    path.write_bytes(damaged[damage])
    lines = error_of(root).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith(f"- {SBD_ARCHIVE.name} cannot be read to its end: ")
    assert len(list((root / "VOC2012" / "JPEGImages").iterdir())) == len(SIZES)


def test_garbled_bytes_within_a_large_file_of_a_tgz_are_noticed(tmp_path):
    large = np.random.default_rng(0).integers(0, 10, 600_000, dtype=np.uint8).tobytes()
    write_archives(tmp_path, {f"{SBD_MASKS}/{BOTH}.mat": large})
    path = tmp_path / SBD_ARCHIVE.name
    good = path.read_bytes()
    path.write_bytes(good[:150_000] + b"\xff" * 50_000 + good[200_000:])  # more than one block
    assert f"- {SBD_ARCHIVE.name} cannot be read to its end: Error" in error_of(tmp_path)


def test_an_official_archive_needs_no_end_mark(root, make_official):
    path = root / VOC_ARCHIVE.name
    with tarfile.open(path) as tar:
        tar.getmembers()
        path.write_bytes(path.read_bytes()[: tar.offset])
    assert "unexpected end of data" in error_of(root)
    make_official(root)
    assert prepare_pascal(root, report=silent).num_images == len(SIZES)


def test_absent_archives_are_downloaded(tmp_path, make_official):
    write_archives(tmp_path / "server")
    make_official(tmp_path / "server")
    lines = []
    prepared = prepare_pascal(tmp_path / "out", tmp_path / "archives", report=lines.append)
    assert prepared.warnings == ()
    assert files_in(tmp_path / "archives") == files_in(tmp_path / "server")
    assert len([line for line in lines if line.startswith("Downloading file://")]) == 2
    prepare_pascal(tmp_path / "out", tmp_path / "archives", report=lines.append)
    assert len([line for line in lines if line.startswith("Downloading file://")]) == 2


def test_a_download_with_another_md5_is_not_kept(tmp_path, make_official):
    write_archives(tmp_path / "server")
    make_official(tmp_path / "server", md5="0" * 32)
    error = error_of(tmp_path / "out")
    assert "0" * 32 in error
    assert hashlib.md5((tmp_path / "server" / VOC_ARCHIVE.name).read_bytes()).hexdigest() in error
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_network_all_that_is_absent_is_named_and_where_to_put_it(tmp_path):
    error = error_of(tmp_path)
    assert "tests have no network" in error
    for archive in (VOC_ARCHIVE, SBD_ARCHIVE):
        for hint in (archive.url, archive.md5, str(tmp_path / archive.name)):
            assert hint in error
    assert list(tmp_path.iterdir()) == []


def test_an_absent_archive_leaves_an_earlier_result_alone(root):
    prepare_pascal(root, report=silent)
    written = files_in(root / "VOC2012")
    (root / SBD_ARCHIVE.name).unlink()
    with pytest.raises(DataError, match=r"benchmark\.tgz"):
        prepare_pascal(root, report=silent)
    assert files_in(root / "VOC2012") == written


def test_a_missing_package_is_named_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    lines = []
    with pytest.raises(DataError, match=r"pip install scipy"):
        prepare_pascal(tmp_path, report=lines.append)
    assert lines == []


def test_a_folder_that_cannot_be_written_or_an_archive_that_cannot_be_read_is_named(root):
    (root / "VOC2012").write_text("in the way")
    with pytest.raises(DataError, match=r"VOC2012.* cannot be written"):
        prepare_pascal(root, report=silent)
    (root / VOC_ARCHIVE.name).unlink()
    (root / VOC_ARCHIVE.name).mkdir()
    with pytest.raises(DataError, match=r"VOCtrainval.* cannot be read"):
        prepare_pascal(root, report=silent)
