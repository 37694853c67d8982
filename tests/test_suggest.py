import json
from pathlib import Path

import numpy as np
import pytest
import torch
from make_data import scene
from PIL import Image
from torch.nn import functional as F

from kshot import DataError, Segmenter
from kshot.cli.main import main
from kshot.io.images import read_image
from kshot.predict.suggest import ImagePrototypes, choose_images, interleave, masked_average_pooling, suggest


def make_prototypes(*objects, background=(1.0, 0.0, 0.0)):
    rows = [torch.tensor([background, one], dtype=torch.float32) for one in objects]
    return [ImagePrototypes((F.normalize(row, dim=-1),)) for row in rows]


def test_what_resembles_the_labelled_object_comes_before_what_does_not():
    others, alike = [(0, 0.1, 1)] * 20, [(0, 1, 0.1 * n) for n in range(8)]
    assert set(choose_images(make_prototypes((0, 1, 0)), make_prototypes(*others, *alike), 2)) < set(
        range(20, 28)
    )


def test_choices_make_the_labelled_ones_as_mixed_as_all_are():
    # Two kinds, equally frequent; one of the first is labelled. So the next is of the second kind.
    labelled = make_prototypes((0, 1, 0.2))
    unlabelled = make_prototypes((0, 1, 0.2), (0, 1, 0.2), (0, 0.2, 1), (0, 0.2, 1))
    assert choose_images(labelled, unlabelled, 1)[0] in (2, 3)


def test_the_first_choice_is_the_best_single_one_by_hand():
    generator = torch.Generator().manual_seed(0)
    labelled = make_prototypes(*torch.rand(2, 3, generator=generator).tolist())
    unlabelled = make_prototypes(*torch.rand(4, 3, generator=generator).tolist())
    vectors = torch.stack([one.vector() for one in unlabelled])
    known = torch.stack([one.vector() for one in labelled])
    misses = [
        (torch.cat([known, vectors[place : place + 1]]).mean(dim=0) - vectors.mean(dim=0)).norm()
        for place in range(4)
    ]
    assert choose_images(labelled, unlabelled, 1) == [int(np.argmin(misses))]


def test_each_image_is_chosen_once_and_no_more_than_there_are():
    unlabelled = make_prototypes(*torch.rand(5, 3).tolist())
    assert sorted(choose_images(make_prototypes((0, 1, 0)), unlabelled, 9)) == [0, 1, 2, 3, 4]
    assert choose_images(make_prototypes((0, 1, 0)), [], 3) == []
    with pytest.raises(DataError, match="suggestions is 0"):
        choose_images(make_prototypes((0, 1, 0)), unlabelled, 0)


def test_classes_take_turns():
    assert interleave([[4, 1, 2], [1, 3, 0]], 4) == [4, 1, 3, 2]
    assert interleave([[4], [1, 3, 0]], 4) == [4, 1, 3, 0]
    assert interleave([], 4) == []


def test_an_image_with_the_object_is_preferred_to_one_without():
    fitted = Segmenter.from_pretrained("prototype", image_size=97).fit(*scene(left=10))
    noise = np.random.default_rng(0).integers(90, 110, (96, 128, 3), dtype=np.uint8)
    images = [read_image(noise), read_image(scene(left=60, seed=1)[0]), read_image(noise // 2)]
    probabilities = [torch.from_numpy(fitted.predict(image).probability)[None, None] for image in images]
    queries = [fitted.encode_query(image) for image in images]
    seen = [masked_average_pooling(*pair) for pair in zip(queries, probabilities, strict=True)]
    labelled = masked_average_pooling(*fitted.support_set["object"].shots[0])
    assert labelled.cosine_similarity(seen[1]) > max(
        labelled.cosine_similarity(seen[0]), labelled.cosine_similarity(seen[2])
    )


def test_an_object_is_like_itself():
    (one,) = make_prototypes((0, 0.3, 0.9))
    assert one.cosine_similarity(one) == pytest.approx(1)
    assert ImagePrototypes.mean([one, one]).cosine_similarity(one) == pytest.approx(1)


@pytest.fixture
def image_folder(tmp_path):
    """Write a labelled image, and three others: two with a disc, one with nothing, and a broken file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    support, mask = scene(left=10)
    support.save(folder / "labelled.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name, left in (("a", 60), ("b", 40)):
        scene(left=left, seed=left)[0].save(folder / f"{name}.png")
    noise = np.random.default_rng(0).integers(90, 110, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "nothing.png")
    (folder / "broken.png").write_bytes(b"no image")
    return tmp_path


def run_suggest(folder, *options):
    labelled = [f"{folder}/photos/labelled.png", f"{folder}/mask.png"]
    arguments = ["suggest", f"{folder}/photos", "--image-size", "97", "--support", *labelled, *options]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def test_the_command_names_what_to_label_next(image_folder, capsys):
    assert run_suggest(image_folder, "--count", "2") == 1  # one file is broken
    out, err = capsys.readouterr()
    suggested = out.splitlines()
    assert len(suggested) == 2
    assert not {"labelled.png", "broken.png"} & {Path(line).name for line in suggested}
    assert "broken.png: failed" in err


def test_the_command_prints_json_with_the_least_sure_first(image_folder, capsys):
    run_suggest(image_folder, "--json", "-")
    found = json.loads(capsys.readouterr().out)
    assert len(found["label_next"]) == 3
    sure = list(found["confidence"].values())
    assert sure == sorted(sure)
    assert [Path(name).name for name in found["failures"]] == ["broken.png"]


def test_an_image_given_twice_is_segmented_once(image_folder):
    support, mask = scene(left=10)
    images = [image_folder / "photos" / name for name in ("a.png", "a.png", "b.png")]
    segmenter = Segmenter.from_pretrained("prototype", image_size=97)
    found = suggest(segmenter, {"disc": [(support, mask)]}, images, 5)
    assert sorted(found.label_next) == sorted(set(images))
