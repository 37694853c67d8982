"""Small images, masks and networks for the tests; nothing here is random without a seed."""

import functools
import json
import resource
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from kshot.methods.base import Method
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import HSNet
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.models.base_learner import PSPNet
from kshot.models.choices import CHANNELS
from kshot.segmenter import Segmenter
from kshot.types import Segmentation


@contextmanager
def full_after(size):
    """Let no file grow beyond `size` bytes, which is as on a disk that has no more room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


TINY = "test_resnet"
"""timm's smallest ResNet: same taps as the large ones, milliseconds a pass."""

NUM_BASE_CLASSES = 4

FEW_CHANNELS = (8, 8, 8)
"""Of the encoder, for tests in which the numbers do not matter: a fifth of the time."""


def random_pyramid(batch=2, sizes=((9, 10), (5, 5), (3, 3)), taps=(2, 3, 1), channels=8, dtype=torch.float32):
    stages = tuple(
        tuple(torch.randn(batch, channels, *size, dtype=dtype) for _ in range(count))
        for size, count in zip(sizes, taps, strict=True)
    )
    return FeaturePyramid(stages, stages[-1][-1])


def randomise_norms(module: nn.Module, seed: int = 0) -> None:
    """Give BatchNorms such statistics as training would: fresh ones hide what is frozen or skipped."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            with torch.no_grad():
                norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
                norm.bias.copy_(0.2 * torch.randn(norm.bias.shape, generator=generator))
                norm.running_mean.copy_(0.2 * torch.randn(norm.bias.shape, generator=generator))
                norm.running_var.copy_(0.5 + torch.rand(norm.bias.shape, generator=generator))


def tiny_backbone(output_stride: int = 32, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    backbone = Backbone(TINY, output_stride=output_stride)
    randomise_norms(backbone, seed)
    return backbone


def tiny_method(name: str, seed: int = 0, channels: Sequence[int] = CHANNELS) -> nn.Module:
    cls = tiny_backbone(seed=seed)
    torch.manual_seed(seed + 1)
    base_learner = PSPNet(TINY, NUM_BASE_CLASSES)
    randomise_norms(base_learner, seed + 1)
    sem = base_learner.backbone
    methods = {
        "prototype": lambda: Prototype(cls),
        "hsnet-cls": lambda: HSNet(cls, channels=channels),
        "hsnet-sem": lambda: HSNet(None, sem, channels=channels),
        "hsnet-both": lambda: HSNet(cls, sem, channels=channels),
        "two-pass": lambda: TwoPass(cls, sem, base_learner.head, channels=channels),
        "two-pass-without-base": lambda: TwoPass(cls, sem, None, channels=channels),
    }
    return methods[name]().eval()


MATCHING_METHODS = ("hsnet-cls", "hsnet-sem", "hsnet-both", "two-pass", "two-pass-without-base")
METHODS = ("prototype", *MATCHING_METHODS)


def square_mask(batch=1, size=(96, 96)):
    mask = torch.zeros(batch, 1, *size)
    mask[..., size[0] // 4 : size[0] // 2, size[1] // 4 : (3 * size[1]) // 4] = 1
    return mask


def scene(width=120, height=90, left=20, seed=0):
    """Draw a red disc on green noise: a image-like image, and the disc's mask."""
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[..., 1] += 80
    picture, mask = Image.fromarray(pixels), Image.new("1", (width, height))
    box = (left, 20, left + 45, 65)
    ImageDraw.Draw(picture).ellipse(box, fill=(220, 40, 30))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return picture, np.asarray(mask)


def two_things(red=20, blue=110, seed=0):
    """Draw a red disc and a blue square on green noise; give the image and labels (H, W), 1 and 2."""
    picture, mask = scene(width=180, left=red, seed=seed)
    box = (blue, 25, blue + 40, 65)
    ImageDraw.Draw(picture).rectangle(box, fill=(40, 60, 230))
    labels = Image.fromarray(mask.astype(np.uint8))
    ImageDraw.Draw(labels).rectangle(box, fill=2)
    return picture, np.asarray(labels)


def iou(a, b):
    """Intersection over union of two bool masks."""
    return (a & b).sum() / (a | b).sum()


COLOURS = ((220, 40, 30), (40, 60, 220), (240, 220, 40), (200, 60, 220), (30, 210, 220))


def coloured_scene(class_ids, width=48, height=36):
    """Draw an object of each class, in its colour on green; give the image and class numbers (H, W)."""
    picture = Image.new("RGB", (width, height), (30, 120, 40))
    labels = Image.new("L", (width, height))
    step = width // len(class_ids)
    for place, class_id in enumerate(class_ids):
        box = (place * step + 2, 6, place * step + step - 4, height - 8)
        ImageDraw.Draw(picture).rectangle(box, fill=COLOURS[class_id % len(COLOURS)])
        ImageDraw.Draw(labels).rectangle(box, fill=class_id + 1)
    return picture, np.array(labels)


def classes_by_image(pairs):
    classes = {}
    for name, class_id in pairs:
        classes.setdefault(name, []).append(class_id)
    return classes


def write_pascal(root, pairs):
    """Write VOC2012's layout: images and palette masks; a border of 255 around the image's edge."""
    images, masks = root / "VOC2012" / "JPEGImages", root / "VOC2012" / "SegmentationClassAug"
    images.mkdir(parents=True)
    masks.mkdir()
    for name, class_ids in classes_by_image(pairs).items():
        picture, labels = coloured_scene(class_ids)
        labels[:, :1] = 255
        picture.save(images / f"{name}.jpg", quality=95)
        mask = Image.fromarray(labels)
        mask.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
        mask.save(masks / f"{name}.png")
    return root


def write_coco(root, pairs, split="val2014"):
    """Write COCO's layout: photographs, and one official instances file.

    Objects are polygons. The left half of the first image is also a crowd of its first class.
    """
    from kshot.data.folds import COCO_CLASSES

    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    ids = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    images, annotations = [], []
    for name, class_ids in classes_by_image(pairs).items():
        picture, labels = coloured_scene(class_ids)
        prefix = f"COCO_{split}_" if split.endswith("2014") else ""
        picture.save(root / split / f"{prefix}{int(name):012}.jpg", quality=95)
        height, width = labels.shape
        images.append({"id": int(name), "height": height, "width": width})
        for class_id in class_ids:
            ys, xs = np.nonzero(labels == class_id + 1)
            left, right, top, bottom = (int(v) for v in (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1))
            outline = [[left, top, right, top, right, bottom, left, bottom]]
            annotations.append(
                {
                    "image_id": int(name),
                    "category_id": ids[class_id],
                    "iscrowd": 0,
                    "segmentation": outline,
                }
            )
    height, width = images[0]["height"], images[0]["width"]
    crowd = [0, height * width // 2, height * width - height * width // 2]  # the left half, columns first
    first = annotations[0]
    annotations.append(first | {"iscrowd": 1, "segmentation": {"size": [height, width], "counts": crowd}})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in zip(ids, COCO_CLASSES, strict=True)],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_fss(root, classes):
    """Write FSS-1000's layout: ten images and black and white masks (in colour) a class."""
    for index, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(1, 11):
            picture, labels = coloured_scene([index])
            picture.save(root / name / f"{number}.jpg", quality=95)
            Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8)).convert("RGB").save(
                root / name / f"{number}.png"
            )
    return root


def write_folder(root, pairs, layout="numbers", class_names=()):
    """Write one's own benchmark: masks of class numbers, or black and white ones in a folder a class."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for name, class_ids in classes_by_image(pairs).items():
        picture, labels = coloured_scene(class_ids)
        picture.save(root / "images" / f"{name}.png")
        if layout == "numbers":
            Image.fromarray(labels).save(root / "masks" / f"{name}.png")
            continue
        for class_id in class_ids:
            path = root / "masks" / class_names[class_id] / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.where(labels == class_id + 1, 255, 0).astype(np.uint8)).save(path)
    if layout == "numbers" and class_names:
        (root / "classes.txt").write_text("\n".join(class_names) + "\n")
    return root


class ColourMethod(Method):
    """A method whose results can be calculated: pixels are foreground if they have the support's colour."""

    needs_training = False
    threshold = 0.7

    def features(self, images):
        return images

    def segment(self, query, supports, size, negatives=()):
        colour = torch.stack(
            [
                (s.features * s.mask).sum(dim=(-2, -1)) / s.mask.sum(dim=(-2, -1)).clamp(min=1)
                for s in supports
            ]
        ).mean(dim=0)
        resized = nn.functional.interpolate(query, size, mode="bilinear", align_corners=False)
        distance = (resized - colour[..., None, None]).abs().amax(dim=1)
        return Segmentation(mask=distance < 0.3, probability=(1 - distance).clamp(0, 1))


def colour_segmenter(image_size=48, **options):
    config = ModelConfig(method="prototype", backbone=TINY, image_size=image_size)
    return Segmenter(config, ColourMethod(), torch.device("cpu"), **options)


@functools.cache
def provenance():
    """Return this checkout's provenance, for which git takes a while."""
    from kshot.io.provenance import record_provenance

    return record_provenance(["evaluate"])


def result_of(
    *,
    seed=0,
    gain=0,
    class_iou=None,
    name="made up",
    method="prototype",
    selected_on=None,
    manifest_sha256="a" * 64,
    image_size=400,
    scored_at="network",
    protocol_name="hsnet",
    **fields,
):
    """Make a result of 60 episodes of three classes up; `gain` pixels more are found in each episode."""
    from kshot.data.protocols import preset
    from kshot.evaluation.metrics import interval, score_episodes
    from kshot.evaluation.results import EpisodeCounts, ModelRecord, Result, Run, resample

    random = np.random.default_rng(seed)
    drawn = ("ant", "bee", "cow") if class_iou is None else tuple(n for n, v in class_iou.items() if v)
    classes = {0: "ant", 1: "bee", 2: "cow"}
    class_ids = np.arange(60) % len(drawn)
    union = random.integers(40, 100, 60)
    intersection = np.minimum((union * random.random(60)).astype(int) + gain, union)
    if class_iou is not None:
        union[:] = 100
        intersection = np.array([int(100 * class_iou[classes[c]]) for c in class_ids])
    counts = np.stack([intersection, union, 1000 - union, 1000 - intersection], axis=1)
    scores = score_episodes(counts, class_ids, list(classes))
    columns = dict(zip(list(EpisodeCounts.model_fields)[1:], counts.T.tolist(), strict=True))
    values = {classes[c]: v for c, v in scores.class_iou.items()}
    run = Run(
        seed=0,
        manifest_sha256=manifest_sha256,
        left_out={},
        miou=scores.miou,
        fb_iou=scores.fb_iou,
        class_iou=values,
        num_images=10,
        features_computed=10,
        num_empty_supports=0,
        episodes=EpisodeCounts(class_id=class_ids.tolist(), **columns),
    )
    samples = resample([run], tuple(classes))
    names = ["miou", "fb_iou", *classes.values()]
    protocol = preset(protocol_name, "pascal").model_copy(update={"num_episodes": 60, "seeds": (0,)})
    config = ModelConfig(method=method, backbone=TINY, image_size=image_size, selected_on=selected_on)
    return Result(
        miou=scores.miou,
        fb_iou=scores.fb_iou,
        class_iou=values,
        class_episodes={n: int((class_ids == c).sum()) for c, n in classes.items()},
        interval={n: interval(samples[:, i]) for i, n in enumerate(names)},
        benchmark=fields.pop("benchmark", "pascal"),
        split=fields.pop("split", "val"),
        fold=fields.pop("fold", 0),
        shots=fields.pop("shots", 1),
        protocol=protocol,
        image_size=image_size,
        scored_at=scored_at,
        classes=classes,
        model=ModelRecord(name=name, config=config, weights_sha256="b" * 64),
        provenance=provenance(),
        runs=[run],
    )


TRAINED, HOLDOUT, NOVEL = (8, 9, 11), (7, 12), (2,)
"""Classes of `write_training_images`, for fold 0 of PASCAL-5i: chair, cow, dog; cat, horse; bird."""


def write_training_images(root, per_class=5):
    """Write a few of PASCAL-5i's train images for fold 0, drawn; one dog's also shows a bird."""
    from kshot.data.benchmarks import read_fold

    queries = [query for fold in range(4) for query in read_fold("pascal", fold, "train").queries]
    shown = classes_by_image(queries)
    pairs = []
    for class_id in (*TRAINED, *HOLDOUT):
        pairs += [(name, c) for name, c in queries if c == class_id and len(shown[name]) == 1][:per_class]
    dogs = [name for name, class_id in pairs if class_id == 11]
    return write_pascal(root, [*pairs, (dogs[0], NOVEL[0])])


def write_tiny_backbone(path):
    """Write ImageNet weights, so to speak, of the tiny backbone."""
    from safetensors.torch import save_file

    save_file(tiny_backbone().trunk.state_dict(), path)
    return path


def settings(*pairs):
    """Return options that change settings, given as NAME=VALUE."""
    return [option for pair in pairs for option in ("--set", pair)]
