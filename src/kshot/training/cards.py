"""The card of a run, in Markdown: what was trained on which data, its score, and how to use it."""

from kshot.data.protocols import SELECTION_NOTES
from kshot.io.provenance import Provenance
from kshot.methods.config import ModelConfig
from kshot.training.base_learner_files import BaseLearnerConfig
from kshot.training.recipes import PretrainConfig, TrainConfig

NAMES = {"pascal": "PASCAL-5i", "coco": "COCO-20i", "fss1000": "FSS-1000"}


def base_learner_card(
    about: BaseLearnerConfig, config: PretrainConfig, scores: dict[str, float], provenance: Provenance
) -> str:
    """Return a base learner's card."""
    phases = "; ".join(
        f"{phase.epochs:g} epochs of {'everything' if phase.learns == 'all' else 'the head'} at stride "
        f"{phase.output_stride}"
        for phase in config.phases
    )
    count = config.num_val_images
    validated = f"{count} of the training images" if count else "the val lists"
    miou = f"{100 * scores['base_miou']:.1f}" if scores else "not measured, as no base class occurs there"
    return f"""# Base learner: PSPNet, {about.backbone}, {about.trained_on}

B_sem and H_cls for `kshot train --base-learner` (Karimi & Poullis 2024, "base learner").

- Classes: {", ".join(about.base_classes)}.
- Training: {phases}; batches of {config.batch} crops of {config.crop} px.
- Novel objects in training images: {config.novel_pixels}; unlabelled pixels: {config.unknown_pixels}.
- mIoU over the base classes on {validated}, which were not trained on: {miou}.

{_provenance(provenance)}"""


def model_card(
    model: ModelConfig, config: TrainConfig, scores: dict[str, float], provenance: Provenance
) -> str:
    """Return a model's card."""
    steps = sum(stage.steps for stage in config.sizes)
    sizes = ", ".join(f"{stage.steps} steps at {stage.image_size} px" for stage in config.sizes)
    backbones = f" with {model.backbones}" if model.method == "hsnet" else ""
    chosen = SELECTION_NOTES[model.selected_on] if model.selected_on else "not chosen: the last weights"
    base = ", ".join(model.base_classes) or "none"
    data = NAMES.get(config.data, config.data)
    cross_fitted = ""
    if config.other_learners_sha256:
        count = 1 + len(config.other_learners_sha256)
        cross_fitted = (
            f" Training episodes took their features from {count} base learners, each from one that was not "
            "trained on its class."
        )
    second = ""
    if model.sharpen_mask:
        second = "\n- The second pass's soft mask is sharpened, which the paper does not do."
    start = "random weights"
    if config.start_from_sha256 is not None:
        start = f"another model's weights (`--start-from`, sha256 {config.start_from_sha256})"
    return f"""# {model.method}{backbones}, {model.backbone}, {data} fold {config.fold}

```python
from kshot import Segmenter

segmenter = Segmenter.from_pretrained("FOLDER OF THIS FILE")
```

- Training: {steps * config.batch} episodes in {steps} steps ({sizes}), 1 shot, Adam at {config.lr:g}.
- Started from {start}.
- Base classes of B_sem: {base}.{cross_fitted}{second}
- Novel objects in training images: {config.novel_pixels}; unlabelled pixels: {config.unknown_pixels}.
- Checkpoint: {chosen}. mIoU there: {100 * scores["miou"]:.1f}, which is no test result: see `kshot evaluate`.

{_provenance(provenance)}"""


def _provenance(provenance: Provenance) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    return f"""Made by `{provenance.command}` on {provenance.date} in {provenance.seconds / 60:.0f} minutes
({provenance.machine}; {versions}; commit {provenance.commit or "unknown"}). `recipe.json` has every setting.
"""
