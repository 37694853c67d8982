"""Models on disk: a folder with `config.json` and, where something was learned, `model.safetensors`.

The ImageNet backbone is not in the file: the config names it, with the digest of its weights.
"""

from collections.abc import Callable, Iterable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, assert_never

from huggingface_hub import snapshot_download
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import save
from torch import Tensor

from kshot.errors import ModelError, WeightsError, fault_of, reason_of
from kshot.io.files import write_bytes, write_text
from kshot.methods.hsnet import HSNet
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import Backbone, TapPlaces
from kshot.models.base_learner import PSPNet
from kshot.models.encoder import CHANNELS
from kshot.models.fusion import FusionKind
from kshot.models.hypercorrelation import MaskPosition
from kshot.models.imagenet_weights import fill, load_backbone, read_state, state_sha256, weights_sha256

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
DEFAULT_MODEL = "prototype"

AnyMethod = Prototype | HSNet | TwoPass


RENAMED = {"matched_by": "backbones", "centred": "center_features", "sharpened": "sharpen_mask"}
"""Settings by the names that they have in older files."""


def with_new_names(settings: Any) -> Any:
    """Return settings read from a file under their present names."""
    if not isinstance(settings, dict):
        return settings
    return {RENAMED.get(name, name): value for name, value in settings.items()}


class ModelConfig(BaseModel):
    """Everything but the weights that makes a model what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _with_new_names = model_validator(mode="before")(with_new_names)

    format: Literal[1] = 1
    """Version of this file's layout."""
    method: Literal["prototype", "hsnet", "two-pass"]
    backbone: str
    """Name of B_cls and of B_sem's architecture; see `backbones.timm_name`."""
    backbones: Literal["cls", "sem", "both"] = "cls"
    """Which backbones hsnet matches with; the others have no choice."""
    channels: tuple[int, int, int] = CHANNELS
    """Width of the 4-D encoder's three layers a stage (paper: 16, 64, 128)."""
    base_classes: tuple[str, ...] = ()
    """What B_sem was trained on, in the order of H_cls's outputs; empty: two-pass without a base map."""
    base_learner: str | None = None
    """Folder of the base learner, from the model's own; None: B_sem and H_cls are in the model's weights."""
    base_learner_sha256: str | None = None
    """Digest of the base learner's weights, checked at loading."""
    image_size: int = Field(default=400, ge=1)
    """Side in pixels to which images are squashed (paper: 400)."""
    mask_position: MaskPosition = "after"
    """Where the support mask enters the correlation; see `hypercorrelation`."""
    center_features: bool = False
    """Whether mean features are taken from features before they are matched; see `methods.hsnet.HSNet`."""
    taps: TapPlaces = "blocks"
    """Where the backbones are tapped; see `backbones.Backbone`."""
    first_stride: Literal[8, 16] = 8
    """Stride of the finest features that are matched (paper: 8)."""
    prior: bool = False
    """Whether decoders also see how alike the query is to the object and to the rest; see `network.prior`."""
    base_stride: Literal[8, 16] = 8
    """Stride at which B_sem and H_cls run (paper: 8). At 16 the features are the same, the base map is
    coarser, and it takes a fraction of the time."""
    fusion: FusionKind = "paper"
    """What two-pass merges with the base map; see `network.fusion`."""
    sharpen_mask: bool = False
    """Whether two-pass sharpens the soft mask of its second pass; see `methods.two_pass.sharpen`."""
    backbone_sha256: str | None = None
    """Digest of B_cls's weights, checked at loading."""
    weights_sha256: str | None = None
    """Digest of the learned weights beside the config, checked at loading: safetensors keeps none."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Foreground probability above which a pixel belongs to the mask; 0.5 is the argmax."""
    selected_on: Literal["base", "novel"] | None = None
    """Whose episodes its checkpoint was chosen on: held-out base classes, or the fold's own novel ones, as
    the field does; None if there was nothing to choose. It is printed beside every number."""


def build_method(
    config: ModelConfig, cls_backbone: Callable[[ModelConfig], Backbone] | None = None
) -> AnyMethod:
    """Build a config's method with random learned weights.

    `cls_backbone` makes B_cls, with its weights; None: with random ones.
    """
    cls_backbone = cls_backbone or _random_backbone
    match config.method:
        case "prototype":
            return Prototype(cls_backbone(config), threshold=config.threshold)
        case "hsnet":
            cls = cls_backbone(config) if config.backbones != "sem" else None
            sem = None
            if config.backbones != "cls":
                sem = Backbone(config.backbone, output_stride=config.base_stride, taps=config.taps)
            return HSNet(
                cls,
                sem,
                mask_position=config.mask_position,
                channels=config.channels,
                threshold=config.threshold,
                center_features=config.center_features,
                first_stride=config.first_stride,
                prior=config.prior,
            )
        case "two-pass":
            base_learner = PSPNet(
                config.backbone,
                len(config.base_classes),
                output_stride=config.base_stride,
                taps=config.taps,
            )
            return TwoPass(
                cls_backbone(config),
                base_learner.backbone,
                base_learner.head if config.base_classes else None,
                mask_position=config.mask_position,
                channels=config.channels,
                threshold=config.threshold,
                center_features=config.center_features,
                first_stride=config.first_stride,
                prior=config.prior,
                sharpen_mask=config.sharpen_mask,
                fusion=config.fusion,
            )
        case _:
            assert_never(config.method)


def imagenet_backbone(config: ModelConfig, weights: str | Path | None = None) -> Backbone:
    """Load a config's B_cls with its ImageNet weights; see `load_backbone`."""
    return load_backbone(config.backbone, weights, taps=config.taps)


def _random_backbone(config: ModelConfig) -> Backbone:
    return Backbone(config.backbone, taps=config.taps)


def load_model(
    name_or_dir: str | Path, backbone: str | None = None, backbone_weights: str | Path | None = None
) -> tuple[ModelConfig, AnyMethod]:
    """Load a model that ships with kshot, a folder, or a repository on the hub, ready to segment.

    backbone: another backbone than the model's, for methods that learn nothing. backbone_weights: a file
    with its ImageNet weights.
    Raises ModelError if there is no such model or its config is broken, WeightsError if weights are
    missing, unreadable, or not those that the model was trained with.
    """
    folder = find_folder(name_or_dir)
    config = read_config(folder / CONFIG_FILE)
    if backbone is not None:
        config = _exchange_backbone(config, backbone)
    method = build_method(config, partial(imagenet_backbone, weights=backbone_weights))
    if method.cls_backbone is not None and config.backbone_sha256 is not None:
        _check_digest(config, method.cls_backbone)
    if learned_weights(method):
        path = folder / WEIGHTS_FILE
        learned = read_state(path)
        state = learned | _backbone_state(method)
        if config.base_learner is not None:
            state |= _read_base_learner(config, folder, method)
        fill(method, state, what=f"Weights in {path}")
        _check_learned(config, learned, path)
    return config, method.eval()


def save_model(config: ModelConfig, method: AnyMethod, folder: Path, *, half: bool = False) -> None:
    """Write a model's folder: the learned weights, then the config, each whole or not at all.

    half: write the weights in half precision. A base learner's folder that the config names is not written.
    """
    if method.cls_backbone is not None:
        digest = weights_sha256(method.cls_backbone)
        config = config.model_copy(update={"backbone_sha256": digest})
    left_out = {} if config.base_learner is None else base_learner_names(method)
    learned = {key: value for key, value in learned_weights(method).items() if key not in left_out}
    if learned:
        digest = write_weights(learned, folder / WEIGHTS_FILE, half=half)
        config = config.model_copy(update={"weights_sha256": digest})
    write_config(config, folder / CONFIG_FILE)


def write_weights(state: dict[str, Tensor], path: Path, *, half: bool) -> str:
    """Write weights, whole or not at all, in half precision but for vectors; return their digest.

    Vectors are few, and a BatchNorm's variance can be too small for half precision.
    """

    def kept(value: Tensor) -> Tensor:
        value = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
        return value.contiguous()

    written = {key: kept(value) for key, value in state.items()}
    write_bytes(save(written), path)  # not save_file: nobody else could read its files
    return state_sha256(written)


def write_config(config: BaseModel, path: Path) -> None:
    """Write a config, whole or not at all."""
    write_text(config.model_dump_json(indent=2) + "\n", path)


def base_learner_names(method: AnyMethod) -> dict[str, str]:
    """Map a method's weights that belong to its base learner to their names in a PSPNet."""
    return _base_learner_names(method.state_dict())


def to_base_learner(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pick a PSPNet's weights out of a method's."""
    return {name: state[key] for key, name in _base_learner_names(state).items()}


def learned_weights(method: AnyMethod) -> dict[str, Tensor]:
    """Give the weights that belong to the model: all but B_cls, which is downloaded or installed."""
    frozen = _backbone_state(method)
    return {key: value for key, value in method.state_dict().items() if key not in frozen}


def find_folder(name_or_dir: str | Path) -> Path:
    """Find the folder of a model that ships with kshot, one's own, or OWNER/NAME on the hub.

    Raises ModelError if there is none.
    """
    name = str(name_or_dir)
    if name in shipped_models():
        return Path(str(files("kshot") / "pretrained" / name))
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        try:
            return Path(snapshot_download(name, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, "base_learner/*"]))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"There is no folder {name}, and no repository of that name could be fetched from the "
                f"hub ({reason_of(error)})."
            ) from error
    raise ModelError(
        f"There is no model or folder '{name}'. kshot ships {', '.join(shipped_models())}; "
        "or give a model's folder, or OWNER/NAME on the Hugging Face hub."
    )


def folder_sha256(folder: Path) -> str:
    """Digest the weights in a model's or a base learner's folder."""
    return state_sha256(read_state(folder / WEIGHTS_FILE))


def read_config(path: Path) -> ModelConfig:
    """Read and check a config file. Raises ModelError that names what is wrong in it."""
    try:
        return ModelConfig.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"Folder {path.parent} holds no model: there is no {path.name} in it.") from None
    except ValidationError as error:
        raise ModelError(f"{path} is not a model's config: {fault_of(error)}.") from error


def shipped_models() -> list[str]:
    """Name the models that come with kshot."""
    return sorted(path.name for path in Path(str(files("kshot") / "pretrained")).iterdir())


def _base_learner_names(keys: Iterable[str]) -> dict[str, str]:
    parts = {"matcher.sem_backbone.": "backbone.", "sem_backbone.": "backbone.", "base_head.": "head."}
    return {
        key: part + key.removeprefix(prefix)
        for key in keys
        for prefix, part in parts.items()
        if key.startswith(prefix)
    }


def _backbone_state(method: AnyMethod) -> dict[str, Tensor]:
    state = method.state_dict()
    return {key: state[key] for key in state if "cls_backbone" in key.split(".")}


def _read_base_learner(config: ModelConfig, folder: Path, method: AnyMethod) -> dict[str, Tensor]:
    path = folder / str(config.base_learner) / WEIGHTS_FILE
    state = read_state(path)
    digest = state_sha256(state)
    if digest != config.base_learner_sha256:
        raise WeightsError(
            f"{path} is not the base learner that the model in {folder} was trained with: sha256 is "
            f"{digest[:12]}…, its config says {str(config.base_learner_sha256)[:12]}…."
        )
    return {key: state[name] for key, name in base_learner_names(method).items() if name in state}


def _exchange_backbone(config: ModelConfig, backbone: str) -> ModelConfig:
    if config.method != "prototype":
        raise ModelError(
            f"A trained {config.method} model works with its own backbone only, {config.backbone}; "
            "prototype takes any. Leave out --backbone, give --model prototype, or train a model with it."
        )
    return config.model_copy(update={"backbone": backbone, "backbone_sha256": None})


def _check_learned(config: ModelConfig, learned: dict[str, Tensor], path: Path) -> None:
    digest = state_sha256(learned)
    if config.weights_sha256 not in (None, digest):
        raise WeightsError(
            f"{path} is damaged, or not the file that its config was saved with: sha256 is {digest[:12]}…, "
            f"the config says {str(config.weights_sha256)[:12]}…. Copy the model's folder anew."
        )


def _check_digest(config: ModelConfig, backbone: Backbone) -> None:
    digest = weights_sha256(backbone)
    if digest != config.backbone_sha256:
        raise WeightsError(
            f"The model was made with other weights of {backbone.name}: sha256 is {digest[:12]}…, "
            f"its config says {str(config.backbone_sha256)[:12]}…. Give the right file with "
            "--backbone-weights."
        )
