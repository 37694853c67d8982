"""The paper's tables with our rows, and lists of results."""

import re
from decimal import Decimal

import numpy as np
import pytest

from kshot.data.folds import COCO_CLASSES, PASCAL_CLASSES, novel_classes
from kshot.data.protocols import preset
from kshot.errors import DataError
from kshot.evaluation.metrics import bootstrap, interval
from kshot.evaluation.results import EpisodeCounts, ModelRecord, Result, Run
from kshot.io.provenance import Provenance
from kshot.methods.config import ModelConfig
from kshot.reproduction.table_writers import MISSING, to_markdown
from kshot.reproduction.tables import ablation_table, list_table, paper_table, read_published

NO_EPISODES = EpisodeCounts(
    class_id=[], intersection=[], union=[], background_intersection=[], background_union=[]
)

PAPER = {
    "2": """
        REPRI 60.2 67.0 61.7 47.5 59.1 64.5 70.8 71.7 60.3 66.8
        BAM + SVF 69.38 74.51 68.80 63.09 68.95 72.05 76.17 71.97 68.91 72.28
        Ours 71.25 76.19 67.73 66.47 70.41 73.85 77.53 70.72 70.41 73.12
        """,
    "3": """
        VAT 39.0 43.8 42.6 39.7 41.3 44.1 51.1 50.2 46.1 47.9
        PFENet 34.3 33.0 32.3 30.1 32.4 38.5 38.6 38.2 34.3 27.4
        Ours 42.15 53.22 49.05 48.08 48.12 47.50 59.14 53.19 51.16 52.75
        """,
}
"""Some rows as the paper's text has them."""


def make_result(fold=0, shots=1, miou=0.5, *, benchmark="pascal", split=None, protocol="hsnet", **changes):
    """A result; `changes` go to the model's config, the protocol or the result, where it is a field."""
    ran = preset(protocol, benchmark)
    config = {"method": "prototype", "backbone": "resnet50"}
    config |= {k: v for k, v in changes.items() if k in ModelConfig.model_fields and k != "image_size"}
    ran = ran.model_copy(update={k: v for k, v in changes.items() if k in type(ran).model_fields})
    names = PASCAL_CLASSES if benchmark == "pascal" else COCO_CLASSES
    ids = novel_classes(benchmark, fold) if benchmark in ("pascal", "coco") else range(60)
    classes = changes.get("classes", {c: names[c] for c in ids})
    run = Run(
        seed=0,
        manifest_sha256="0",
        left_out=changes.get("left_out", {}),
        miou=miou,
        fb_iou=miou + 0.2,
        class_iou={},
        num_images=1,
        features_computed=1,
        num_empty_supports=0,
        episodes=NO_EPISODES,
    )
    return Result(
        miou=miou,
        fb_iou=miou + 0.2,
        class_iou={},
        class_episodes={},
        interval={"miou": (miou - 0.01, miou + 0.01), "fb_iou": (miou + 0.19, miou + 0.21)},
        benchmark=benchmark,
        split=split or ("val" if benchmark in ("pascal", "coco") else "all"),
        fold=fold,
        shots=shots,
        protocol=ran,
        image_size=ran.image_size or 400,
        scored_at=ran.scored_at,
        classes=classes,
        model=ModelRecord(
            name=changes.get("model", "model"),
            config=ModelConfig(**config),
            weights_sha256=changes.get("weights", "w"),
        ),
        provenance=Provenance(
            date=changes.get("date", "2026-01-01"),
            command="kshot evaluate",
            commit=None,
            versions={},
            machine="",
            seconds=1,
        ),
        runs=[run],
    )


def texts(table, word):
    """The rows whose label has a word in it, as text."""
    return [[cell.text for cell in row] for row in table.rows if word in row[1].text]


def four_folds(shots=1, scores=(0.6, 0.7, 0.5, 0.4), **changes):
    return [make_result(fold, shots, score, **changes) for fold, score in enumerate(scores)]


@pytest.mark.parametrize("number", ["2", "3"])
def test_printed_numbers_are_the_papers(number):
    rows = {(row.method, *row.cells[1], *row.cells[5]) for row in read_published(number).rows}
    for line in PAPER[number].strip().splitlines():
        name, *values = re.split(r"\s+(?=\d)", line.strip())
        assert (name, *values) in rows
    backbones = [row.backbone for row in read_published(number).rows]
    assert backbones == ["Resnet-50"] * 10 + ["Resnet-101"] * (9 if number == "2" else 7)


@pytest.mark.parametrize("number", ["2", "3"])
def test_just_the_means_that_their_folds_do_not_give_are_marked(number):
    for row in read_published(number).rows:
        assert set(row.slip) <= {"row", "1", "5"}
        for shots, (*folds, mean) in row.cells.items():
            exact = sum(map(Decimal, folds)) / 4
            rounding = Decimal(
                "0.011" if any(len(v.partition(".")[2]) == 2 for v in (*folds, mean)) else "0.06"
            )
            is_wrong = abs(exact - Decimal(mean)) > rounding
            assert (str(shots) in row.slip) == is_wrong, (row.backbone, row.method, shots)
            if is_wrong:
                assert f"{mean} is not the mean of its folds, {exact.normalize()}" in row.slip[str(shots)]


@pytest.mark.parametrize("number", ["2", "3"])
def test_just_the_rows_that_repeat_another_are_marked(number):
    seen = {}
    for row in read_published(number).rows:
        numbers = (*row.cells[1], *row.cells[5])
        assert ("row" in row.slip) == (numbers in seen), (row.backbone, row.method)
        seen[numbers] = row


def test_the_slips_that_are_known():
    slips = {n: " ".join(s for r in read_published(n).rows for s in r.slip.values()) for n in ("2", "3", "5")}
    assert slips["2"].count("printed") == 3
    assert "SSP, Resnet-101: the printed row repeats" in slips["2"]
    assert slips["3"].count("printed") == 3
    assert "PFENet, Resnet-101, 5-shot: the printed mean 27.4" in slips["3"]
    assert not slips["5"]


@pytest.mark.parametrize("number", ["2", "3", "5"])
def test_without_results_there_are_no_rows_of_ours(number):
    table = paper_table(number, [])
    assert len(table.rows) == len(read_published(number).rows)
    assert all(row[1].text.endswith(", published") for row in table.rows)
    assert not texts(table, "kshot")


def test_an_unknown_table_is_refused():
    with pytest.raises(DataError, match=r"no published table '4'\. Choose one of 2, 3, 5"):
        paper_table("4", [])


def test_a_complete_row_has_the_mean_of_unrounded_folds():
    table = paper_table("2", four_folds(scores=(0.60049, 0.70049, 0.50049, 0.40049)))
    (row,) = texts(table, "kshot")
    ours = ["60.0", "70.0", "50.0", "40.0", "55.0"]
    assert row == ["Resnet-50", "kshot prototype (hsnet protocol, 400 px)", *ours, *[MISSING] * 5]
    assert [r[0].text for r in table.rows] == ["Resnet-50"] * 11 + ["Resnet-101"] * 9


def test_a_missing_fold_leaves_a_gap_and_no_mean():
    (row,) = texts(paper_table("2", four_folds(shots=5)[:3]), "kshot")
    assert row[2:] == [MISSING] * 5 + ["60.0", "70.0", "50.0", MISSING, MISSING]


def test_other_benchmarks_splits_and_shots_stay_outside():
    strangers = [
        make_result(benchmark="coco"),
        make_result(split="train"),
        make_result(shots=2),
        make_result(benchmark="coco-mini-60"),
    ]
    assert not texts(paper_table("2", strangers), "kshot")
    assert len(texts(paper_table("3", strangers), "kshot")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "bam"},
        {"image_size": 320},
        {"scored_at": "original"},
        {"fit": "pad"},
        {"rule": "balanced"},
        {"method": "hsnet"},
        {"method": "hsnet", "backbones": "both"},
        {"method": "two-pass"},
        {"mask_position": "before"},
        {"backbone": "efficientnet_lite0"},
        {"backbone": "resnet50.a1_in1k"},
        {"selected_on": "novel"},
    ],
)
def test_what_differs_gets_a_row_of_its_own(change):
    rows = texts(paper_table("2", [make_result(0), make_result(1, **change)]), "kshot")
    assert len(rows) == 2
    assert sorted(row[2:4].index(MISSING) for row in rows) == [0, 1]
    if "selected_on" not in change:
        assert rows[0][:2] != rows[1][:2]


def test_new_backbones_stand_below_the_papers():
    results = [
        make_result(backbone=b) for b in ("tf_efficientnet_lite0.in1k", "resnet101", "resnet50.tv_in1k")
    ]
    backbones = [row[0].text for row in paper_table("2", results).rows]
    assert list(dict.fromkeys(backbones)) == ["Resnet-50", "Resnet-101", "EfficientNet-Lite0"]
    assert [backbones.count(name) for name in dict.fromkeys(backbones)] == [11, 10, 1]


@pytest.mark.parametrize("make", [lambda results: paper_table("2", results), list_table])
def test_two_results_in_one_cell_are_refused(make):
    results = [make_result(model="old", date="2026-01-01"), make_result(model="new", date="2026-02-02")]
    with pytest.raises(
        DataError, match=r"fold 0 1-shot: old of 2026-01-01 and new of 2026-02-02\. Leave one"
    ):
        make(results)


@pytest.mark.parametrize(
    "change", [("weights", {}), ("backbone_sha256", {"method": "hsnet"})], ids=["prototype", "hsnet"]
)
def test_a_row_never_mixes_weights_of_its_backbone(change):
    field, config = change
    with pytest.raises(DataError, match="mixes weights of its backbone"):
        paper_table("2", [make_result(f, **config, **{field: f"digest {f}"}) for f in (0, 1)])


def test_the_folds_of_a_trained_model_share_a_row():
    models = [
        make_result(f, method="two-pass", weights=f"w{f}", base_classes=(f"base of {f}",)) for f in range(4)
    ]
    (row,) = texts(paper_table("2", models), "kshot")
    assert row[1] == "kshot two-pass (hsnet protocol, 400 px)"


def notes_of(*results):
    row = next(row for row in paper_table("2", results).rows if "kshot" in row[1].text)
    return [cell.notes for cell in row]


@pytest.mark.parametrize(
    ("selected_on", "words"), [("novel", "on the novel classes"), ("base", "on held-out base classes")]
)
def test_it_is_said_what_a_checkpoint_was_chosen_on(selected_on, words):
    notes = notes_of(make_result(method="hsnet", selected_on=selected_on))
    assert words in notes[1][0]
    assert notes_of(make_result(method="hsnet"))[1] == ()


def test_fewer_episodes_or_classes_than_the_protocols_are_marked():
    fewer = "Made of 300 episodes (seed 0); the hsnet protocol has 1000 episodes (seed 0)."
    results = [make_result(0, num_episodes=300), *four_folds()[1:]]
    notes = notes_of(*results)
    assert notes[2] == notes[6] == (fewer,)  # fold 0, and the mean that it is part of
    assert notes[3] == ()
    one_seed = notes_of(make_result(protocol="bam", seeds=(510,)))[2][0]
    assert one_seed.endswith("the bam protocol has 1000 episodes of each seed (510, 365, 382, 322, 988).")
    assert notes_of(make_result(1, classes={5: "bus"}))[3] == ("Mean of 1 of the 5 classes of fold 1.",)


def test_the_ablation():
    results = [
        make_result(1, 5, miou=0.61, method="two-pass", base_classes=("cat",)),
        make_result(0, miou=0.1),
        *(
            make_result(0, miou=m, method="hsnet", backbones=b)
            for m, b in ((0.2, "cls"), (0.3, "sem"), (0.4, "both"))
        ),
    ]
    rows = texts(paper_table("5", results), "kshot")
    assert [row[1].partition(" (")[0] for row in rows] == [
        "kshot with B_cls + B_sem",
        "kshot Baseline",
        "kshot with B_sem",
        "kshot two-pass with B_cls + B_sem",
    ]
    assert [row[2] for row in rows] == ["40.0", "20.0", "30.0", MISSING]
    assert rows[-1][8] == "61.0"


GOLDEN_ABLATION = """\
**Ablation on PASCAL-5i, mIoU in percent**

| Backbone | Method | 1-shot f0 | 1-shot f1 | 1-shot f2 | 1-shot f3 | 1-shot mIoU | 5-shot f0 | 5-shot f1 | 5-shot f2 | 5-shot f3 | 5-shot mIoU |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Resnet-50 | Baseline (HSNet, Min et al. 2021), published | - | - | - | - | - | - | - | - | - | - |
| Resnet-50 | with B_sem, published | - | - | - | - | - | - | - | - | - | - |
| Resnet-50 | with B_cls + B_sem, published | - | - | - | - | - | - | - | - | - | - |
| Resnet-50 | two-pass with B_cls + B_sem, published | - | - | - | - | - | - | - | - | - | - |
| Resnet-50 | kshot Baseline (hsnet protocol, 400 px)<sup>a</sup> | 60.0<sup>b</sup> | 70.0 | 50.0 | 40.0 | 55.0<sup>b</sup> | - | - | - | - | - |
| Resnet-101 | Baseline (HSNet, Min et al. 2021), published | - | - | - | - | - | - | - | - | - | - |
| Resnet-101 | with B_sem, published | - | - | - | - | - | - | - | - | - | - |
| Resnet-101 | with B_cls + B_sem, published | - | - | - | - | - | - | - | - | - | - |
| Resnet-101 | two-pass with B_cls + B_sem, published | - | - | - | - | - | - | - | - | - | - |

- <sup>a</sup> Checkpoint chosen on held-out base classes.
- <sup>b</sup> Made of 9 episodes (seed 0); the hsnet protocol has 1000 episodes (seed 0).
- Rows marked published: Table 5 of A. Karimi & C. Poullis 2024, Sci Rep 14:4028, doi 10.1038/s41598-024-54640-6.
- The numbers of the published rows are missing in the text of the paper that this table was made from. Its prose gives the gains of the two-pass over the baseline: 1-shot +3.64 with Resnet-50 and +3.88 with Resnet-101, 5-shot +1.6 and +2.16.
- The published ablation was trained for 200 epochs in batches of 12, at an initial learning rate of 1e-3.
- Rows marked kshot come from result files of kshot evaluate; -: no result. Means are over all four folds.
"""  # noqa: E501


def test_golden_ablation():
    model = {"method": "hsnet", "selected_on": "base"}
    first, *others = four_folds(**model)
    table = paper_table("5", [first.model_copy(update={"protocol": few(first.protocol)}), *others])
    assert to_markdown(table).replace(MISSING, "-") == GOLDEN_ABLATION


def few(protocol):
    return protocol.model_copy(update={"num_episodes": 9})


GOLDEN_LIST = """\
**Scores in percent; intervals by bootstrap over episodes**

| Benchmark | Shots | Backbone | Model | mIoU | 95 % interval | FB-IoU |
| --- | --- | --- | --- | ---: | ---: | ---: |
| coco-mini-60 | 1 | EfficientNet-Lite0 | prototype (balanced protocol, 400 px) | 34.2 | 33.2 to 35.2 | 54.2 |
| coco-mini-60 | 1 | Resnet-50 | prototype (balanced protocol, 400 px) | 40.0 | 39.0 to 41.0 | 60.0 |
| pascal train fold 1 | 5 | Resnet-50 | prototype (hsnet protocol, 400 px) | 50.0 | 49.0 to 51.0 | 70.0 |

- coco-mini-60 1-shot: 60 classes, 1000 episodes of each seed (0, 1, 2) by the balanced protocol, without tie, skis (too few images).
- pascal train fold 1 5-shot: 5 classes, 1000 episodes (seed 0) by the hsnet protocol.
"""  # noqa: E501


def test_golden_list():
    mini = {"benchmark": "coco-mini-60", "protocol": "balanced", "left_out": {"tie": 1, "skis": 0}}
    results = [
        make_result(1, 5, split="train"),
        make_result(miou=0.4, **mini),
        make_result(miou=0.342, backbone="efficientnet_lite0", **mini),
    ]
    assert to_markdown(list_table(results)).replace(MISSING, "-") == GOLDEN_LIST


def test_a_list_averages_four_folds_where_they_are_all_there():
    results = [*four_folds(), *four_folds(backbone="resnet101")[1:], *four_folds(shots=5)[:1]]
    table = list_table(results)
    means = [[cell.text for cell in row] for row in table.rows if row[0].text == "pascal mean of folds"]
    assert [row[1:3] + row[4:] for row in means] == [["1", "Resnet-50", "55.0", MISSING, "75.0"]]
    (footnote,) = table.footnotes  # all columns are alike
    assert "pascal fold 3 1-shot, pascal fold 0 5-shot: 5 classes" in footnote


def test_a_list_tells_trained_models_apart_by_name_where_they_share_a_benchmark():
    common = {"benchmark": "coco-mini-60", "method": "hsnet"}
    table = list_table([make_result(model="hsnet-f0", **common), make_result(model="hsnet-f1", **common)])
    assert [row[3].text.partition(":")[0] for row in table.rows] == ["hsnet-f0", "hsnet-f1"]


def test_a_list_of_nothing_is_empty():
    assert list_table([]).rows == ()


def scored(method, hits, *, name="m", manifest="0", **config):
    """A result on coco-mini-60 of one class, each episode of 100 pixels, with so many found."""
    made = make_result(
        benchmark="coco-mini-60", protocol="balanced", classes={3: "cup"}, method=method, **config
    )
    episodes = EpisodeCounts(
        class_id=[3] * len(hits),
        intersection=hits,
        union=[100] * len(hits),
        background_intersection=[0] * len(hits),
        background_union=[1] * len(hits),
    )
    run = made.runs[0].model_copy(update={"episodes": episodes, "manifest_sha256": manifest})
    model = made.model.model_copy(update={"name": name})
    return made.model_copy(update={"runs": [run], "miou": sum(hits) / len(hits) / 100, "model": model})


def test_methods_stand_side_by_side_with_paired_differences():
    random = np.random.default_rng(0)
    base = random.integers(20, 60, 50)
    results = [
        scored("two-pass", (base + 12).tolist(), name="a"),
        scored("two-pass", (base + 8).tolist(), name="b"),
        scored("hsnet", base.tolist(), backbones="sem"),
        scored("hsnet", random.permutation(base).tolist()),
    ]
    table = ablation_table(results)
    rows = {row[0].text: row[1] for row in table.rows}
    assert list(rows) == [
        "hsnet by B_cls",
        "hsnet by B_sem",
        "two-pass",
        "two-pass is ahead of hsnet by B_cls by",
        "two-pass is ahead of hsnet by B_sem by",
    ]
    # Always ten ahead on the same episodes: nothing is uncertain, though each score is.
    assert rows["two-pass is ahead of hsnet by B_sem by"].text == "+10.0 (+10.0 to +10.0)"
    low, high = re.findall(r"[+-][\d.]+", rows["two-pass is ahead of hsnet by B_cls by"].text)[1:]
    assert float(low) < 10 < float(high)
    counts = np.array(results[2].runs[0].episodes.counts)
    by_hand = interval(bootstrap(counts, np.full(50, 3), [3])[:, 0])
    text = f"{base.mean():.1f} ({100 * by_hand[0]:.1f} to {100 * by_hand[1]:.1f})"
    assert rows["hsnet by B_sem"].text == text
    assert rows["two-pass"].notes == (f"2 trainings: {base.mean() + 12:.1f}, {base.mean() + 8:.1f}.",)


def test_a_missing_result_leaves_a_gap_in_the_ablation():
    other = scored("hsnet", [5, 6]).model_copy(update={"shots": 5})
    rows = {
        row[0].text: [cell.text for cell in row[1:]]
        for row in ablation_table([scored("two-pass", [7]), other]).rows
    }
    assert rows["two-pass"][1] == rows["hsnet by B_cls"][0] == MISSING
    assert rows["two-pass is ahead of hsnet by B_cls by"] == [MISSING, MISSING]


@pytest.mark.parametrize("change", [{"manifest": "1"}, {"image_size": 401}])
def test_what_was_not_run_alike_is_not_set_side_by_side(change):
    results = [scored("two-pass", [7]), scored("hsnet", [5], **change)]
    with pytest.raises(DataError, match="cannot stand in one column, coco-mini-60"):
        ablation_table(results)


def test_an_ablation_needs_two_pass():
    with pytest.raises(DataError, match="compares with two-pass"):
        ablation_table([scored("hsnet", [5])])
