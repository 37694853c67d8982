"""A model's config: everything except its weights."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kshot.models.choices import CHANNELS, FusionKind, MaskPosition

RENAMED = {"matched_by": "backbones", "centred": "center_features", "sharpened": "sharpen_mask"}
"""Settings by the names that they have in older files."""

REMOVED = (("taps", "blocks"),)
"""Removed settings of older files, with their only remaining value."""


def with_new_names(settings: Any) -> Any:
    """Return settings read from a file under their present names."""
    if not isinstance(settings, dict):
        return settings
    kept = {name: value for name, value in settings.items() if (name, value) not in REMOVED}
    return {RENAMED.get(name, name): value for name, value in kept.items()}


class ModelConfig(BaseModel):
    """Everything except the weights of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _with_new_names = model_validator(mode="before")(with_new_names)

    @field_validator("method")
    @classmethod
    def _is_registered(cls, method: str) -> str:
        from kshot.methods.base import METHODS  # not above: it imports torch, and a config does not

        METHODS[method]
        return method

    format: Literal[1] = 1
    """Version of this file's layout."""
    method: str
    """Name of a registered method: prototype, hsnet, two-pass, or that of another package."""
    backbone: str
    """Name of B_cls and of B_sem's architecture; see `backbones.timm_name`."""
    backbones: Literal["cls", "sem", "both"] = "cls"
    """Backbones that hsnet matches with; other methods ignore this."""
    channels: tuple[int, int, int] = CHANNELS
    """Width of the three layers of each stage of the 4-D encoder (paper: 16, 64, 128)."""
    base_classes: tuple[str, ...] = ()
    """Classes of B_sem, in the order of H_cls's outputs; empty: two-pass without a base map."""
    base_learner: str | None = None
    """Folder of the base learner, relative to the model's; None: it is part of the model's weights."""
    base_learner_sha256: str | None = None
    """Digest of the base learner's weights, checked at loading."""
    image_size: int = Field(default=400, ge=1)
    """Side in pixels to which images are squashed (paper: 400)."""
    mask_position: MaskPosition = "after"
    """Where the support mask enters the correlation; see `hypercorrelation`."""
    center_features: bool = False
    """Whether mean features are subtracted before matching; see `methods.hsnet.HSNet`."""
    first_stride: Literal[8, 16] = 8
    """Stride of the finest features that are matched (paper: 8)."""
    prior: bool = False
    """Whether decoders also get the query's similarity to the object and to the rest; see `models.prior`."""
    base_stride: Literal[8, 16] = 8
    """Stride at which B_sem and H_cls run (paper: 8). At 16 the features are the same, the base map is
    coarser, and it is much faster."""
    fusion: FusionKind = "paper"
    """What two-pass merges with the base map; see `models.fusion`."""
    sharpen_mask: bool = False
    """Whether two-pass sharpens the soft mask of its second pass; see `methods.two_pass.sharpen`."""
    backbone_sha256: str | None = None
    """Digest of B_cls's weights, checked at loading."""
    weights_sha256: str | None = None
    """Digest of the learned weights beside the config, checked at loading."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Foreground probability above which a pixel belongs to the mask; 0.5 is the argmax."""
    selected_on: Literal["base", "novel"] | None = None
    """Classes on which the checkpoint was chosen: holdout base classes, or the fold's novel ones, as the
    field does; None if no checkpoint was chosen. It is printed beside every number."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of a method from another package."""
