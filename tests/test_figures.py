from unittest.mock import patch

import numpy as np
import pytest
from make_data import result_of, scene
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from kshot.data.folds import COCO_CLASSES
from kshot.errors import DataError
from kshot.io.provenance import Provenance
from kshot.reproduction.charts import class_bars_figure, discriminability_figure
from kshot.reproduction.correlations import DepthMap
from kshot.reproduction.discriminability import Discriminability
from kshot.reproduction.image_figures import (
    ComparisonRow,
    PassesRow,
    comparison_figure,
    correlation_figure,
    passes_figure,
)
from kshot.reproduction.style import DOUBLE_COLUMN, PALETTE, SINGLE_COLUMN, TEXT, save_figure

RESNET50 = [8] * 4 + [16] * 6 + [32] * 3
RESNET101 = [8] * 4 + [16] * 23 + [32] * 3
LONG_NAMES = tuple(f"a rather long name of class {n}" for n in range(15))


def rho_of(label="B_cls ResNet-50", strides=RESNET50, seed=0):
    rho = (1.1 + np.random.default_rng(seed).random(len(strides))).tolist()
    return Discriminability(
        backbone="resnet50",
        weights_sha256="",
        label=label,
        taps=[(stride, f"tap {k}") for k, stride in enumerate(strides)],
        foreground=rho,
        background=[1.0] * len(strides),
        rho=rho,
        num_episodes=1,
        num_left_out=0,
        manifest_sha256="",
        image_size=400,
        provenance=Provenance(date="", command="", commit=None, versions={}, machine="", seconds=0),
    )


def result_with(names, seed=0, **fields):
    values = 0.2 + 0.6 * np.random.default_rng(seed).random(len(names))
    iou = dict(zip(names, values.tolist(), strict=True))
    changes = {
        "classes": dict(enumerate(names)),
        "class_iou": iou,
        "interval": {n: (v - 0.1, v + 0.15) for n, v in iou.items()} | {"miou": (0.25, 0.75)},
        "miou": 0.5,
    }
    return result_of(**fields).model_copy(update=changes)


def texts_of(figure):
    """Draw a figure, and give each text that is drawn with its box in pixels."""
    drawn, draw = [], Text.draw

    def note_and_draw(text, renderer):
        drawn.append(text)
        draw(text, renderer)

    renderer = FigureCanvasAgg(figure).get_renderer()
    with patch.object(Text, "draw", note_and_draw):
        figure.draw(renderer)
    return [
        (text, text.get_window_extent(renderer)) for text in drawn if text.get_visible() and text.get_text()
    ]


def assert_legible(figure):
    """Check that texts are large enough, inside the figure, and off each other."""
    texts = texts_of(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in texts:
        assert text.get_fontsize() >= TEXT, text
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -1, text
    for index, (text, box) in enumerate(texts):
        for other, beside in texts[index + 1 :]:
            across = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            along = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            assert across <= 0.5 or along <= 0.5, (text, other)


def strings_of(figure):
    return [text.get_text() for text, _ in texts_of(figure)]


def maps_of(image, depths=("Tap 1, stride 8", "Tap 2, stride 16")):
    values = np.linspace(0, 0.5, image.width * image.height).reshape(image.height, image.width)
    return [DepthMap(depth, values) for depth in depths]


def passes_row(name="cow", **size):
    image, mask = scene(**size)
    ground_truth = np.where(mask, 1, 0).astype(np.uint8)
    soft = np.where(mask, 0.9, 0.2)
    return PassesRow(image, mask, image, ground_truth, soft, soft**2, mask, name)


def comparison_row(number, name="cow", **size):
    image, mask = scene(**size)
    ground_truth = np.where(mask, 1, 0).astype(np.uint8)
    return ComparisonRow(image, mask, image, ground_truth, [mask] * number, name)


def example_correlation():
    image, mask = scene()
    return correlation_figure(image, image, mask, {"B_cls": maps_of(image)}, mask)


EXAMPLES = {
    "discriminability": lambda: discriminability_figure([rho_of()]),
    "correlation": example_correlation,
    "passes": lambda: passes_figure([passes_row()]),
    "comparison": lambda: comparison_figure([comparison_row(1)], ["prototype"]),
    "bars": lambda: class_bars_figure([result_of()]),
}


# Files


@pytest.mark.parametrize("suffix", [".png", ".PDF", ".svg"])
def test_the_same_figure_is_the_same_bytes(tmp_path, suffix):
    first, second = discriminability_figure([rho_of()]), discriminability_figure([rho_of()])
    for name, figure in (("a", first), ("b", second), ("c", first)):
        save_figure(figure, tmp_path / f"{name}{suffix}")
    contents = [(tmp_path / f"{name}{suffix}").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] == contents[2]
    assert b"Date" not in contents[0]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_png_has_the_requested_size_is_legible_and_changes_no_settings(tmp_path, name):
    before = dict(rcParams)
    figure = EXAMPLES[name]()
    for file in ("a.png", "b.png"):
        save_figure(figure, tmp_path / file)
    assert dict(rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        width = image.width / 300
    assert width in (SINGLE_COLUMN, DOUBLE_COLUMN)
    assert width == figure.get_figwidth()
    assert_legible(figure)


def test_a_pdf_has_fonts_that_journals_take(tmp_path):
    save_figure(discriminability_figure([rho_of()]), tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in content
    assert b"/CIDFontType2" in content  # TrueType, which fonttype 42 means


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.eps"])
def test_another_suffix_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}.*\.png, \.pdf, \.svg"):
        save_figure(discriminability_figure([rho_of()]), tmp_path / name)
    assert not list(tmp_path.iterdir())


# Feature discriminability


def test_a_discriminability_figure_shows_every_tap_and_stage():
    figure = discriminability_figure([rho_of(), rho_of("B_sem ResNet-50", seed=1)])
    (axes,) = figure.axes
    level, *lines = axes.get_lines()[:3]
    assert set(level.get_ydata()) == {1}
    assert [line.get_label() for line in lines] == ["$B_{cls}$ ResNet-50", "$B_{sem}$ ResNet-50"]
    for line, seed in zip(lines, (0, 1), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(1, 14))
        np.testing.assert_array_equal(line.get_ydata(), rho_of(seed=seed).rho)
    assert [line.get_xdata()[0] for line in axes.get_lines()[3:]] == [4.5, 10.5]
    assert {"8", "16", "32", *map(str, range(1, 14)), "$B_{cls}$ ResNet-50"} <= set(strings_of(figure))
    assert figure.get_figwidth() == SINGLE_COLUMN
    assert_legible(figure)


def test_architectures_get_plots_of_one_scale():
    results = [rho_of(), rho_of("B_cls ResNet-101", RESNET101), rho_of("B_sem ResNet-50")]
    figure = discriminability_figure(results)
    left, right = figure.axes
    assert [len(axes.get_legend().get_texts()) for axes in (left, right)] == [2, 1]
    assert left.get_ylim() == right.get_ylim()
    assert figure.get_figwidth() == DOUBLE_COLUMN
    assert_legible(figure)


def test_a_tap_without_ratio_leaves_a_gap():
    result = rho_of()
    result = result.model_copy(update={"rho": [None, *result.rho[1:]]})
    line = discriminability_figure([result]).axes[0].get_lines()[1]
    assert np.isnan(line.get_ydata()).tolist() == [True] + [False] * 12


def test_discriminability_figures_need_results_and_colours():
    with pytest.raises(DataError, match="no backbones"):
        discriminability_figure([])
    with pytest.raises(DataError, match="8 backbones of one architecture, but only 7 colours"):
        discriminability_figure([rho_of()] * (len(PALETTE) + 1))


# Correlations


@pytest.mark.parametrize("size", [{}, {"width": 90, "height": 120}])
@pytest.mark.parametrize("backbones", [1, 2, 3])
def test_a_correlation_figure_has_one_row_per_backbone(size, backbones):
    image, mask = scene(**size)
    heatmaps = {f"B_{n} prototype efficientnet_lite0": maps_of(image) for n in range(backbones)}
    figure = correlation_figure(image, image, mask, heatmaps, mask)
    assert len(figure.axes) == 1 + 2 * backbones + 1  # query, maps, colour bar
    strings = strings_of(figure)
    assert strings.count("max 0.50") == 2 * backbones
    assert strings.count("Tap 1, stride 8") == 1
    assert_legible(figure)


def test_different_depths_get_headings_in_every_row():
    image, mask = scene()
    depths = [f"Tap {k}, stride {s}" for k, s in enumerate((8, 8, 16, 16, 32, 32), 1)]
    others = [depth.replace("Tap ", "Tap 1") for depth in depths]
    heatmaps = {"B_cls Lite0": maps_of(image, depths), "B_cls Lite1": maps_of(image, others)}
    figure = correlation_figure(image, image, mask, heatmaps)
    assert {d.replace(" ", "") for d in depths + others} <= {"".join(s.split()) for s in strings_of(figure)}
    assert_legible(figure)


def test_the_inset_hides_as_little_as_it_can():
    image, _ = scene()
    ground_truth = np.ones((image.height, image.width), np.uint8)
    ground_truth[:40, 70:] = 255
    query, *_ = correlation_figure(
        image, image, ground_truth == 255, {"B": maps_of(image)}, ground_truth
    ).axes
    (inset,) = query.child_axes
    query, middle = query.get_window_extent(), inset.get_window_extent()
    assert middle.x0 > query.x0 + query.width / 2
    assert middle.y0 > query.y0 + query.height / 2


def test_correlations_need_maps():
    image, mask = scene()
    for heatmaps, message in (({}, "no backbones"), ({"B": []}, "{'B': 0}")):
        with pytest.raises(DataError, match=message):
            correlation_figure(image, image, mask, heatmaps)
    unequal = {"a": maps_of(image), "b": maps_of(image)[:1]}
    with pytest.raises(DataError, match="same number of heat maps"):
        correlation_figure(image, image, mask, unequal)


def test_a_map_without_correlation_can_be_drawn():
    image, mask = scene()
    flat = [DepthMap("Tap 1", np.zeros((image.height, image.width)))]
    assert "max 0.00" in strings_of(correlation_figure(image, image, mask, {"B": flat}))


# Episodes


def test_passes_have_one_row_per_episode():
    figure = passes_figure([passes_row("cow"), passes_row("a long name of a class", width=60, height=90)])
    assert len(figure.axes) == 2 * 5 + 1
    strings = strings_of(figure)
    assert {"Support", "Result", "cow", "Foreground probability"} <= set(strings)
    assert strings.count("IoU 100") == 2
    assert_legible(figure)


def test_likely_pixels_are_bright_and_the_query_is_visible():
    row = passes_row()
    first, second = (passes_figure([row]).axes[n].images[0].get_array() for n in (2, 3))
    inside, outside = (first[m].mean() for m in (row.ground_truth == 1, row.ground_truth == 0))
    assert inside > outside + 40
    assert second[row.ground_truth == 0].mean() < outside
    assert first[row.ground_truth == 0].std(axis=0).max() > 1


def test_a_comparison_shows_each_method_with_its_iou():
    row = comparison_row(2)
    half = row.predictions[0].copy()
    half[:, : half.shape[1] // 2] = False
    ground_truth = row.ground_truth.copy()
    ground_truth[:30] = 255
    row = row._replace(predictions=[row.predictions[0], half], ground_truth=ground_truth)
    figure = comparison_figure([row, comparison_row(2, name="")], ["prototype", "two-pass"])
    known = ground_truth != 255
    expected = 100 * (half & (ground_truth == 1)).sum() / ((half | (ground_truth == 1)) & known).sum()
    assert 0 < expected < 100
    strings = strings_of(figure)
    assert strings.count("IoU 100") == 3
    assert f"IoU {expected:.0f}" in strings
    assert {"Support", "Query and ground truth", "prototype", "two-pass", "cow"} <= set(strings)
    assert len(figure.axes) == 2 * 4


@pytest.mark.parametrize("number", [1, 2, 6])
def test_headings_and_names_wrap_and_images_keep_their_aspect(number):
    rows = [
        comparison_row(number, "motorbike"),
        comparison_row(number, "baseball glove", width=60, height=100),
    ]
    names = [f"two-pass without base map, EfficientNet-Lite{n}" for n in range(number)]
    figure = comparison_figure(rows, names)
    assert figure.get_figwidth() == (SINGLE_COLUMN if number == 1 else DOUBLE_COLUMN)
    for axes in figure.axes:
        height, width = axes.images[0].get_array().shape[:2]
        box = axes.get_window_extent()
        assert box.width / box.height == pytest.approx(width / height)
    assert_legible(figure)


def test_an_empty_prediction_can_be_drawn():
    row = comparison_row(1)
    figure = comparison_figure([row._replace(predictions=[np.zeros_like(row.support_mask)])], ["none"])
    assert "IoU 0" in strings_of(figure)


def test_episodes_need_rows_and_predictions():
    with pytest.raises(DataError, match="no episodes"):
        passes_figure([])
    with pytest.raises(DataError, match="no episodes"):
        comparison_figure([], ["prototype"])
    with pytest.raises(DataError, match="no methods"):
        comparison_figure([comparison_row(0)], [])
    with pytest.raises(DataError, match=r"Row 1 has 1 predictions.*2 methods \(a, b\)"):
        comparison_figure([comparison_row(2), comparison_row(1)], ["a", "b"])


# Bars


def test_few_classes_are_vertical_bars_in_the_order_of_the_first_result():
    results = [result_with(("ant", "bee", "cow"), seed) for seed in (0, 1)]
    figure = class_bars_figure(results)
    (axes,) = figure.axes
    order = sorted(results[0].class_iou, key=results[0].class_iou.get, reverse=True)
    assert [label.get_text() for label in axes.get_xticklabels()] == order
    bars = [c for c in axes.containers if len(c) == 3 and hasattr(c[0], "get_height")]
    for container, result in zip(bars, results, strict=True):
        heights = [bar.get_height() for bar in container]
        np.testing.assert_allclose(heights, [100 * result.class_iou[name] for name in order])
        segments = container.errorbar[2][0].get_segments()
        ends = [segment[:, 1] for segment in segments]
        np.testing.assert_allclose(ends, [100 * np.array(result.interval[name]) for name in order])
    assert_legible(figure)


def test_the_legend_names_model_backbone_shots_and_miou():
    result = result_with(("ant", "bee"), name="two-pass").model_copy(update={"shots": 5})
    (label,) = [text.get_text() for text in class_bars_figure([result]).legends[0].get_texts()]
    backbone = result.model.config.backbone
    assert label.replace("\n", " ") == f"two-pass, {backbone}, 5-shot: mIoU 50.0 [25.0, 75.0]"
    chosen = result_of(selected_on="novel")
    (label,) = [text.get_text() for text in class_bars_figure([chosen]).legends[0].get_texts()]
    assert "chosen on the novel classes" in label.replace("\n", " ")


@pytest.mark.parametrize(
    ("names", "width"),
    [(LONG_NAMES[:5], SINGLE_COLUMN), (LONG_NAMES, SINGLE_COLUMN), (COCO_CLASSES[:60], DOUBLE_COLUMN)],
)
def test_many_or_long_names_are_horizontal_bars_and_legible(names, width):
    figure = class_bars_figure([result_with(names, 0), result_with(names, 1), result_with(names, 2)])
    first = figure.axes[0]
    assert first.get_xlabel().startswith("IoU")
    assert first.yaxis_inverted()
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    values = result_with(names, 0).class_iou
    assert shown == sorted(values, key=values.get, reverse=True)
    assert figure.get_figwidth() == width
    assert_legible(figure)


def test_twelve_short_names_are_vertical_bars():
    figure = class_bars_figure([result_with([f"class {n}" for n in range(12)])])
    assert figure.get_figwidth() == DOUBLE_COLUMN
    assert len(figure.axes[0].get_xticklabels()) == 12
    assert_legible(figure)


def test_results_of_different_benchmarks_do_not_share_a_figure():
    with pytest.raises(DataError, match="no results"):
        class_bars_figure([])
    with pytest.raises(DataError, match="8 results"):
        class_bars_figure([result_of()] * 8)
    with pytest.raises(DataError, match=r"must not share a figure: .*protocol hsnet.*protocol bam"):
        class_bars_figure([result_of(), result_of(protocol_name="bam")])
    with pytest.raises(DataError, match="2 classes"):
        class_bars_figure([result_of(), result_with(("ant", "bee"))])
