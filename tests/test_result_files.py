import json

import numpy as np
import pytest
from make_data import colour_segmenter, result_of, write_folder

from kshot.data.folder import Folder
from kshot.data.manifest import draw_manifests
from kshot.data.protocols import SELECTION_NOTES, preset
from kshot.errors import DataError
from kshot.evaluation.results import read_result, summary, write_result
from kshot.evaluation.score import score_model


@pytest.fixture
def result(tmp_path):
    folder = write_folder(
        tmp_path / "data", [(f"im{n}", n % 2) for n in range(6)], class_names=("ant", "bee")
    )
    protocol = preset("balanced", "folder").model_copy(update={"num_episodes": 4, "seeds": (0, 1)})
    manifests = draw_manifests(str(folder), protocol)
    return score_model(colour_segmenter(), Folder(folder), manifests, protocol, name="colour")


def test_a_result_comes_back_as_it_was(result, tmp_path):
    write_result(result, tmp_path / "r.json")
    assert read_result(tmp_path / "r.json") == result
    text = (tmp_path / "r.json").read_text()
    content = json.loads(text)
    assert {"miou", "fb_iou", "class_iou"} <= content.keys()
    assert 0 <= content["miou"] <= 1
    assert content["class_iou"].keys() == {"ant", "bee"}
    columns = content["runs"][0]["episodes"]
    assert all(len(column) == 4 for column in columns.values())
    assert max(map(len, text.splitlines())) < 200  # lists of numbers take one line, dictionaries do not
    assert str(tmp_path) not in text


def test_a_setting_that_models_have_no_more_does_not_hide_a_score(result, tmp_path):
    content = json.loads(result.model_dump_json())
    content["model"]["config"]["number_of_heads"] = 3
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert read_result(tmp_path / "old.json").miou == result.miou


def test_counters_give_the_score_again(result):
    run = result.runs[0]
    class_ids = np.array(run.episodes.class_id)
    for class_id, name in result.classes.items():
        sums = run.episodes.counts[class_ids == class_id].sum(axis=0)
        assert run.class_iou[name] == pytest.approx(sums[0] / max(sums[1], 1))


def test_what_is_no_result_is_an_error(tmp_path, result):
    with pytest.raises(DataError, match=r"no result file .*gone"):
        read_result(tmp_path / "gone.json")
    content = result.model_dump(mode="json")
    content["miou"] = "good"
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"is no result of kshot evaluate: miou"):
        read_result(tmp_path / "r.json")


def test_the_summary_says_what_a_number_depends_on():
    made = result_of(selected_on="novel", class_iou={"ant": 0.5, "bee": 0.25, "cow": 0.0})
    lines = "\n".join(summary(made))
    assert "pascal fold 0 (val), 1-shot, protocol hsnet (400 px squash, scored at network size)" in lines
    assert "mIoU    25.0 %" in lines
    assert "chosen on the novel classes themselves, the field's habit" in lines
    assert "cow" in lines
    assert "too narrow" not in lines  # 30 episodes of each class that was drawn
    few = made.model_copy(update={"class_episodes": {"ant": 1, "bee": 9, "cow": 10}})
    assert "1 episode\n" in "\n".join(summary(few))
    assert "Note: 2 classes have fewer than 10 episodes" in "\n".join(summary(few))
    assert "never drawn: counts as 0" in lines
    assert SELECTION_NOTES.keys() == {"base", "novel"}
