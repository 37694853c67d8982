import numpy as np
import pytest
import torch
from make_data import colour_segmenter, write_folder
from torch.utils.data import DataLoader

from kshot.data import EpisodeDataset, open_dataset
from kshot.data.benchmarks import read_fold
from kshot.data.folder import Folder
from kshot.data.manifest import draw_manifest, draw_manifests
from kshot.data.protocols import preset
from kshot.errors import DataError
from kshot.evaluation.score import check_alike, score_model
from kshot.transforms import Resize

PAIRS = [(f"im{n}", n % 3) for n in range(12)] + [("rare", 3)]


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path, PAIRS, class_names=("ant", "bee", "cow", "dodo"))


def short(name="balanced", count=12, **changes):
    return preset(name, "folder").model_copy(update={"num_episodes": count, **changes})


def test_a_result_holds_what_is_needed_to_get_it_again(folder):
    manifests = draw_manifests(str(folder), short())
    assert [m.seed for m in manifests] == [0, 1, 2]
    seen = []
    result = score_model(
        colour_segmenter(),
        Folder(folder),
        manifests,
        short(),
        name="runs/colour",
        arguments=["evaluate", "--root", "secret", "--json=secret", "--fold", "0"],
        on_progress=lambda *a: seen.append(a),
    )
    assert result.miou > 0.9
    assert result.miou == pytest.approx(np.mean([run.miou for run in result.runs]))
    assert list(result.class_iou) == ["ant", "bee", "cow"]
    assert result.class_episodes == {"ant": 12, "bee": 12, "cow": 12}
    assert [run.left_out for run in result.runs] == [{"dodo": 1}] * 3
    assert result.manifests == tuple(m.sha256 for m in manifests)
    assert (result.image_size, result.scored_at, result.model.name) == (48, "original", "colour")
    assert result.provenance.command == "kshot evaluate --root PLACE --json=PLACE --fold 0"
    assert seen[-1] == (36, 36)
    low, high = result.interval["miou"]
    assert low <= result.miou <= high


def test_classes_with_too_few_images_are_skipped_and_named(folder):
    fold = Folder(folder).fold()
    assert draw_manifest(fold, short(), 3, 0).left_out == {"dodo": 1}
    with pytest.raises(DataError, match=r"No class has enough images: 5-shot .* 'ant' has most, 4"):
        draw_manifest(fold, short(), 5, 0)


def test_a_draw_can_be_restricted_to_what_is_there(folder):
    fold = read_fold(str(folder))
    for name in ("im0", "im4"):
        (folder / "images" / f"{name}.png").unlink()
    manifest = draw_manifest(fold, short(), 1, 0, present=Folder(folder))
    assert manifest.restricted_to == 11
    assert not {"im0", "im4"} & {name for e in manifest.episodes for name in (e.query, *e.supports)}


def test_manifests_must_belong_together(folder):
    one, two = (draw_manifest(Folder(folder).fold(), short(), shots, 0) for shots in (1, 2))
    with pytest.raises(DataError, match="their shots differs"):
        check_alike([one, two], "folder")
    with pytest.raises(DataError, match="is of folder, but --data is pascal"):
        check_alike([one], "pascal")
    with pytest.raises(DataError, match="given twice"):
        check_alike([one, one], "folder")


def test_episodes_come_as_tensors_in_batches(folder):
    (manifest,) = draw_manifests(str(folder), short(seeds=(0,)), shots=2)
    episodes = EpisodeDataset(open_dataset(str(folder), None), manifest.episodes, Resize(32, "pad"))
    assert len(episodes) == 12
    batches = list(DataLoader(episodes, batch_size=5))
    assert [len(batch.class_id) for batch in batches] == [5, 5, 2]
    first, batch = manifest.episodes[0], batches[0]
    assert batch.query_image.shape == (5, 3, 32, 32)
    assert batch.support_images.shape == (5, 2, 3, 32, 32)
    assert batch.support_masks.shape == (5, 2, 1, 32, 32)
    assert batch.class_id[0] == first.class_id
    assert torch.equal(batch.query_image[:1], episodes.image(first.query))
    assert torch.equal(batch.support_masks[0, 1:], episodes.support_mask(first.supports[1], first.class_id))
    assert set(batch.query_mask.unique().tolist()) == {0, 1, 255}
    assert (batch.query_mask[0, -1] == 255).all()  # padding
