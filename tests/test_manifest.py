import hashlib
import json

import pytest

from kshot.data.benchmarks import read_fold
from kshot.data.manifest import draw_manifest, read_manifest, write_manifest
from kshot.data.protocols import preset
from kshot.errors import DataError


@pytest.fixture
def manifest(tmp_path):
    protocol = preset("hsnet", "pascal").model_copy(update={"num_episodes": 20})
    drawn = draw_manifest(read_fold("pascal", 1), protocol, 2, 0)
    write_manifest(drawn, tmp_path / "m.json")
    return drawn, tmp_path / "m.json"


def test_a_manifest_comes_back_as_it_was(manifest):
    drawn, path = manifest
    assert read_manifest(path) == drawn
    content = json.loads(path.read_text())
    assert content["episodes"][0].keys() == {"class_id", "query", "supports"}
    assert (content["benchmark"], content["fold"], content["protocol"], content["seed"]) == (
        "pascal",
        1,
        "hsnet",
        0,
    )
    text = json.dumps(content["episodes"], sort_keys=True, separators=(",", ":"))
    assert content["sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["episodes"][0].update(query="2007_000033"), "the file was changed"),
        (lambda c: c["episodes"].pop(), "the file was changed"),
        (lambda c: c.update(format=2), "format"),
        (lambda c: c.pop("seed"), "seed"),
        (lambda c: c["episodes"][0].pop("query"), "KeyError"),
        (lambda c: c.update(episodes=3), "no manifest"),
    ],
)
def test_a_manifest_that_was_changed_is_an_error(manifest, change, reason):
    _, path = manifest
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=reason):
        read_manifest(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda e: e.update(supports=[e["query"], "x"]), "is among its supports"),
        (lambda e: e.update(supports=["x"]), "1 supports, not 2"),
        (lambda e: e.update(class_id=0), "class 0 is not among"),
    ],
)
def test_an_episode_that_cannot_be_run_is_named(manifest, change, reason):
    _, path = manifest
    content = json.loads(path.read_text())
    change(content["episodes"][3])
    text = json.dumps(content["episodes"], sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"Episode 3 .*{reason}"):
        read_manifest(path)


def test_a_manifest_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r"no manifest .*gone"):
        read_manifest(tmp_path / "gone.json")
    (tmp_path / "text.json").write_text("not JSON")
    with pytest.raises(DataError, match="no manifest"):
        read_manifest(tmp_path / "text.json")
