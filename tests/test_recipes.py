import pytest
from pydantic import ValidationError

from kshot.models.choices import CHANNELS
from kshot.training.recipes import PretrainConfig, SizeStage, TrainConfig, lite, paper_coco, paper_pascal


def test_the_published_settings():
    """Karimi & Poullis 2024, "Implementation details"."""
    pretrain, train = paper_pascal()
    assert (pretrain.backbone, pretrain.optimiser, pretrain.momentum, pretrain.weight_decay) == (
        "resnet50",
        "sgd",
        0.9,
        1e-4,
    )
    assert (pretrain.batch, pretrain.crop, pretrain.scale, pretrain.degrees) == (12, 417, (0.5, 2.0), 10)
    assert (pretrain.backbone_lr, pretrain.head_lr) == (2.5e-4, 2.5e-3)
    assert [(p.epochs, p.output_stride, p.learns) for p in pretrain.phases] == [(100, 8, "all")]
    assert (train.lr, train.batch, train.decay, train.flip, train.channels) == (
        1e-3,
        24,
        "none",
        False,
        CHANNELS,
    )
    assert train.sizes[-1].image_size == 400
    assert train.sizes[-1].steps == 200 * (3425 + 5883 + 2086) // 24
    assert (pretrain.novel_pixels, train.novel_pixels) == ("drop", "background")  # BAM's, HSNet's

    pretrain, train = paper_coco("resnet101", fold=2)
    assert (pretrain.backbone, pretrain.fold, pretrain.data) == ("resnet101", 2, "coco")
    assert (pretrain.backbone_lr, pretrain.head_lr, train.batch) == (2.5e-3, 2.5e-3, 48)
    assert pretrain.phases[0].epochs == 20


def test_the_lite_recipe_is_honest_and_fits_its_backbone():
    pretrain, train = lite()
    assert pretrain.exclude_holdout
    assert train.select_on == "base"
    assert pretrain.backbone == train.backbone
    # A TensorFlow EfficientNet is the same dilated and undilated at 32 n + 1 pixels only.
    assert pretrain.crop % 32 == 1
    assert all(stage.image_size % 32 == 1 for stage in train.sizes)


def test_settings_are_checked():
    with pytest.raises(ValidationError, match="epochs"):
        PretrainConfig.model_validate({"backbone": "resnet50", "phases": [{"epochs": 0}]})
    with pytest.raises(ValidationError, match="image_size"):
        TrainConfig(
            backbone="resnet50", sizes=(SizeStage.model_construct(steps=1, image_size=8),)
        ).model_validate({"backbone": "resnet50", "sizes": [{"steps": 1, "image_size": 8}]})
    with pytest.raises(ValidationError, match="learning_rate"):
        TrainConfig.model_validate({"backbone": "x", "sizes": [], "learning_rate": 1})
