import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from test_components import blobs

from kshot.annotations.writers import SegmentedImage, coco_document, labelme_document
from kshot.errors import KshotError


def answer(name="a.jpg", seed=0):
    mask = blobs(seed)
    probability = np.where(mask, 0.75, 0.25).astype(np.float32)
    other = np.zeros_like(mask)
    other[50:56, 2:12] = True
    return SegmentedImage(name, {"blob": mask, "box": other}, {"blob": probability, "box": probability})


def without_specks(mask):
    from kshot.annotations.components import connected_components

    kept = np.zeros_like(mask)
    for one in connected_components(mask, mask.astype(np.float32)):
        left, top, width, height = one.box
        kept[top : top + height, left : left + width] |= one.mask
    return kept


def test_pycocotools_reads_the_same_masks(tmp_path, capsys):
    answers = [answer("a.jpg"), answer("deep/b.png", 1), answer("c.jpg", 2)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco_document(iter(answers), ["box", "blob"])))
    coco = COCO(str(path))
    capsys.readouterr()
    assert [c["name"] for c in coco.loadCats([1, 2])] == ["box", "blob"]
    for image, given in zip(coco.loadImgs(coco.getImgIds()), answers, strict=True):
        assert (image["file_name"], image["height"], image["width"]) == (given.file_name, 60, 80)
        for category, name in ((1, "box"), (2, "blob")):
            union = np.zeros((60, 80), dtype=bool)
            for found in coco.loadAnns(coco.getAnnIds([image["id"]], [category])):
                mask = coco.annToMask(found).astype(bool)
                assert (found["area"], found["iscrowd"]) == (mask.sum(), 0)
                assert isinstance(found["segmentation"]["counts"], str)
                assert found["score"] == pytest.approx(given.probabilities[name][mask].mean())
                assert not (union & mask).any()
                union |= mask
            np.testing.assert_array_equal(union, without_specks(given.masks[name]))
    assert len({found["id"] for found in coco.loadAnns(coco.getAnnIds())}) == len(coco.getAnnIds())


def test_labelme_shapes_are_polygons_and_masks_of_what_has_holes():
    mask = np.zeros((40, 50), dtype=bool)
    mask[5:15, 5:20] = mask[20:35, 20:40] = True
    mask[25:30, 25:30] = False
    document = labelme_document(SegmentedImage("../a.jpg", {"ring": mask}, {"ring": mask.astype(np.float32)}))
    assert document["imagePath"] == "../a.jpg"
    assert document["imageData"] is None
    assert (document["imageHeight"], document["imageWidth"]) == (40, 50)
    box, ring = document["shapes"]
    assert (box["label"], box["shape_type"], box["mask"]) == ("ring", "polygon", None)
    drawn = Image.new("1", (50, 40))
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in box["points"]], outline=1, fill=1)
    np.testing.assert_array_equal(np.asarray(drawn)[:18], mask[:18])
    assert (ring["shape_type"], ring["points"]) == ("mask", [[20, 20], [39, 34]])
    piece = np.asarray(Image.open(io.BytesIO(base64.b64decode(ring["mask"]))))
    np.testing.assert_array_equal(piece > 0, mask[20:35, 20:40])
    json.dumps(document)


def test_what_cannot_be_written_is_named():
    with pytest.raises(KshotError, match=r"'a\.jpg' shows 'blob', which is not among"):
        coco_document([answer()], ["box"])
    given = answer()
    with pytest.raises(KshotError, match="maps of the sizes"):
        labelme_document(given._replace(probabilities={}))
    with pytest.raises(KshotError, match="maps of the sizes"):
        coco_document([SegmentedImage("a.jpg", {}, {})], ["box"])
