"""A frozen convolutional backbone and its feature pyramid.

timm builds the networks; this file decides where to tap them. `imagenet_weights.py` loads their weights.
"""

from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vgg import VGG
from torch import Tensor, nn

from kshot.errors import ModelError
from kshot.models import kernels
from kshot.models.kernels.onednn import use_onednn

STRIDES = (8, 16, 32)
"""Strides of the pyramid's stages, in pixels (Min et al. 2021: layers 2, 3, 4 of a ResNet)."""

# Short names of the weights that the field uses; timm's own names with their tags work, too.
SHORT_NAMES = {
    "resnet50": "resnet50.tv_in1k",
    "resnet101": "resnet101.tv_in1k",
    "vgg16": "vgg16.tv_in1k",
    "efficientnet_lite0": "tf_efficientnet_lite0.in1k",
    "efficientnet_lite1": "tf_efficientnet_lite1.in1k",
    "efficientnet_lite2": "tf_efficientnet_lite2.in1k",
}

# Modules with which a dilated network computes, at every second and fourth position, what the undilated one
# computes: a dilated convolution skips the positions between, and norms and activations see one position.
# Average and blur pooling (ResNet-D, anti-aliasing) average with the positions between, which the undilated
# network does not have, and attention averages all positions. Max pooling is the stem's, at stride 4.
STRIDE_SAFE = (
    *(ResNet, BasicBlock, Bottleneck, EfficientNet, DepthwiseSeparableConv, InvertedResidual),
    *(nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Identity, nn.Sequential, nn.MaxPool2d),
)

# The TF Lite networks were trained on (255 x - 127) / 128; timm's configuration has (x - 0.5) / 0.5.
TF_LITE_MEAN, TF_LITE_STD = 127 / 255, 128 / 255


class FeaturePyramid(NamedTuple):
    """Features of a batch of images.

    stages: for strides 8, 16, 32 the taps of that stride from shallow to deep, each (B, C, h, w).
    last: the trunk's output (B, C, h, w) after its last activation, the input of a head; None for cached
    features, whose head has already run.
    """

    stages: tuple[tuple[Tensor, ...], ...]
    last: Tensor | None


class Tap(NamedTuple):
    """Where features are taken: at the input or the output of a named module."""

    module: str
    side: Literal["input", "output"]


def timm_name(name: str) -> str:
    """Return timm's name of a backbone, with the weights' tag; hyphens are read as underscores.

    Raises ModelError if timm has no such model.
    """
    name = name.replace("-", "_")
    name = SHORT_NAMES.get(name, name)
    if not timm.is_model(name):
        raise ModelError(
            f"Backbone '{name}' does not exist. Use one of {', '.join(SHORT_NAMES)}, "
            "or the name of a convolutional network in timm.list_models()."
        )
    return name


class Backbone(nn.Module):
    """A convolutional network without its head that returns a FeaturePyramid.

    Frozen unless `trainable`: no gradients, and BatchNorm stays in eval even after `.train()`.
    With `output_stride=8` the network runs dilated and its features are taken at every second and fourth
    position, so the pyramid has the same shape; `last` then has stride 8. These features equal the undilated
    ones if the network has only modules of STRIDE_SAFE, because the first block of a dilated layer keeps the
    previous dilation. Networks with asymmetric padding (TensorFlow's) sample a grid that is shifted by about
    a pixel.

    The weights are random and nothing is downloaded; see `imagenet_weights.load_backbone`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.name = timm_name(name)
        self.output_stride = output_stride
        self.trainable = trainable
        self.taps = find_taps(self.name)
        self.trunk = _create_trunk(self.name, output_stride)
        self.num_features: int = _stage_info(self.trunk)[-1]["num_chs"]
        mean, std = _normalization(self.trunk)
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)
        _place_taps(self.trunk, self.taps)
        if not trainable:
            self.requires_grad_(False)
        self.train(trainable)

    @property
    def taps_per_stage(self) -> tuple[int, ...]:
        """The number of taps at strides 8, 16 and 32."""
        return tuple(len(stage) for stage in self.taps)

    @property
    def num_tap_channels(self) -> int:
        """The number of channels of all taps, counted in the pyramid of a tiny image."""
        pyramid = self(torch.zeros(1, 3, STRIDES[-1], STRIDES[-1], device=self.mean.device))
        return sum(tap.shape[1] for stage in pyramid.stages for tap in stage)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode; a frozen backbone stays in eval, with fixed BatchNorm."""
        return super().train(mode and self.trainable)

    def forward(self, images: Tensor) -> FeaturePyramid:
        """Compute the pyramid of RGB images (B, 3, H, W) in [0, 1], H and W of any size."""
        return self._pyramid(self.trunk, images, self.output_stride)

    def support_pyramid(self, images: Tensor) -> FeaturePyramid:
        """Compute the pyramid alone: `last` may have any stride.

        With kernels, a dilated network runs undilated if that computes the same features.
        """
        is_dilated = self.output_stride < STRIDES[-1]
        if kernels.enabled() and is_dilated and not self.trainable and self._is_same_undilated(images.shape):
            return self._pyramid(self._undilated, images, STRIDES[-1])
        return self._pyramid(self.trunk, images, self.output_stride)

    def _is_same_undilated(self, shape: torch.Size) -> bool:
        is_safe, has_tf_padding = self._dilation_traits
        return is_safe and not (has_tf_padding and any(side % STRIDES[-1] != 1 for side in shape[-2:]))

    @cached_property
    def _dilation_traits(self) -> tuple[bool, bool]:
        """Whether all modules are of STRIDE_SAFE, and whether some have TensorFlow's asymmetric padding."""
        used = [module for name, module in self.trunk.named_modules() if not name.startswith("global_pool")]
        is_safe = all(isinstance(module, STRIDE_SAFE) for module in used)
        return is_safe, any(isinstance(module, Conv2dSame) for module in used)

    @cached_property
    def _undilated(self) -> Any:
        """The trunk at output stride 32; not a submodule, because its weights are the trunk's."""
        return _undilated_twin(self.trunk, self.name, self.taps)

    def deepest(self, images: Tensor) -> Tensor:
        """Compute only the trunk's output (B, C, h, w), which is all that a head needs."""
        return self._run(self.trunk, images)

    def _pyramid(self, trunk: Any, images: Tensor, output_stride: int) -> FeaturePyramid:
        steps = (
            max(stride // output_stride, 1)
            for stage, stride in zip(self.taps, STRIDES, strict=True)
            for _ in stage
        )
        collector = _Collector([], steps)
        token = _collector.set(collector)
        try:
            last = self._run(trunk, images)
        finally:
            _collector.reset(token)
        features = iter(collector.features)
        return FeaturePyramid(tuple(tuple(next(features) for _ in stage) for stage in self.taps), last)

    def _run(self, trunk: Any, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            normalized = (images - self.mean) / self.std
            normalized = normalized.contiguous(memory_format=kernels.memory_format())
            features: Tensor = trunk.forward_features(normalized)
        return features


class _Collector(NamedTuple):
    """The features tapped so far, and the steps between positions of the taps to come."""

    features: list[Tensor]
    steps: Iterator[int]


# The hooks are permanent and shared by threads; each call has its own collector.
_collector: ContextVar[_Collector | None] = ContextVar("collector", default=None)


def _collect(features: Tensor) -> None:
    collector = _collector.get()
    if collector is not None:
        step = next(collector.steps)
        kept = features[..., ::step, ::step]
        # Cloned, because the in-place ReLU that follows would overwrite it.
        collector.features.append(kept.clone(memory_format=kernels.memory_format()))


def _tap_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
    _collect(output)


def _tap_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    _collect(inputs[0])


def _create_trunk(name: str, output_stride: int) -> Any:
    if output_stride == 32:
        trunk = timm.create_model(name, pretrained=False, num_classes=0)
    else:
        try:
            trunk = timm.create_model(name, pretrained=False, num_classes=0, output_stride=output_stride)
        except (TypeError, AssertionError, NotImplementedError) as error:
            raise ModelError(
                f"Backbone '{name}' cannot run at output stride {output_stride}, which the base learner "
                "needs. Use a ResNet or an EfficientNet, or the hsnet method with B_cls only."
            ) from error
    # The layers after the last tap belong to the classifier.
    for head in ("conv_head", "pre_logits", *(["bn2"] if hasattr(trunk, "conv_head") else [])):
        if hasattr(trunk, head):
            setattr(trunk, head, nn.Identity())
    use_onednn(trunk)
    return trunk


def _place_taps(trunk: Any, taps: tuple[tuple[Tap, ...], ...]) -> None:
    for tap in (tap for stage in taps for tap in stage):
        module = trunk.get_submodule(tap.module)
        if tap.side == "input":
            module.register_forward_pre_hook(_tap_input)
        else:
            module.register_forward_hook(_tap_output)


def _undilated_twin(trunk: Any, name: str, taps: tuple[tuple[Tap, ...], ...]) -> Any:
    """Build a trunk of output stride 32 that shares the dilated trunk's weights."""
    with torch.device("meta"):
        twin = _create_trunk(name, STRIDES[-1]).eval()
    modules = dict(trunk.named_modules())
    for path, module in twin.named_modules():
        module._parameters, module._buffers = modules[path]._parameters, modules[path]._buffers
    _place_taps(twin, taps)
    return twin


def _normalization(trunk: Any) -> tuple[Tensor, Tensor]:
    config = trunk.pretrained_cfg
    if config["architecture"].startswith("tf_efficientnet_lite"):
        return torch.full((3,), TF_LITE_MEAN), torch.full((3,), TF_LITE_STD)
    return torch.tensor(config["mean"]), torch.tensor(config["std"])


@cache
def find_taps(name: str) -> tuple[tuple[Tap, ...], ...]:
    """Find the taps of a timm network at strides 8, 16 and 32, from shallow to deep.

    ResNet: every block of layers 2, 3, 4 after the residual addition and before its last ReLU, so that
    values are signed. VGG: the convolutions of blocks 4 and 5 before their ReLUs, and the last pool.
    Others (EfficientNet, MobileNet, RegNet, ConvNeXt, ...): the outputs of the blocks of each stage.
    Raises ModelError if one of the strides has no features to tap.
    """
    with torch.device("meta"):
        model = _create_trunk(name, 32)
    if isinstance(model, ResNet):
        return _resnet_taps(model)
    if isinstance(model, VGG):
        return _vgg_taps(model)
    return _block_taps(name, model)


def _resnet_taps(model: ResNet) -> tuple[tuple[Tap, ...], ...]:
    def last_activation(block: nn.Module) -> str:
        return "act3" if hasattr(block, "act3") else "act2"  # BasicBlock has two activations

    return tuple(
        tuple(
            Tap(f"{layer}.{index}.{last_activation(block)}", "input")
            for index, block in enumerate(model.get_submodule(layer).children())
        )
        for layer in ("layer2", "layer3", "layer4")
    )


def _vgg_taps(model: VGG) -> tuple[tuple[Tap, ...], ...]:
    layers = list(enumerate(model.features.children()))
    pools = [index for index, layer in layers if isinstance(layer, nn.MaxPool2d)]
    convolutions = [index for index, layer in layers if isinstance(layer, nn.Conv2d)]

    def between(start: int, end: int) -> tuple[Tap, ...]:
        return tuple(Tap(f"features.{i}", "output") for i in convolutions if start < i < end)

    block_4, block_5 = between(pools[2], pools[3]), between(pools[3], pools[4])
    return block_4, block_5, (Tap(f"features.{pools[4]}", "output"),)


def _block_taps(name: str, model: Any) -> tuple[tuple[Tap, ...], ...]:
    stride_of = _output_strides(name, model)
    found: dict[int, list[Tap]] = {stride: [] for stride in STRIDES}
    for stage_name in _stage_names(model, stride_of):
        stage = model.get_submodule(stage_name)
        inner = f"{stage_name}.blocks" if hasattr(stage, "blocks") else stage_name
        blocks = [f"{inner}.{child}" for child, _ in model.get_submodule(inner).named_children()]
        stride = stride_of[stage_name]
        if not blocks or any(stride_of.get(block) != stride for block in blocks):
            blocks = [stage_name]
        found[stride] += [Tap(block, "output") for block in blocks]
    missing = [stride for stride, taps in found.items() if not taps]
    if missing:
        raise ModelError(
            f"Backbone '{name}' has no feature maps at stride {missing[0]}; kshot needs 8, 16 and 32. "
            "Use a convolutional network with these strides, such as resnet50 or efficientnet_lite0."
        )
    return tuple(tuple(taps) for taps in found.values())


def _stage_info(model: Any) -> list[dict[str, Any]]:
    info = getattr(model, "feature_info", [])
    return list(getattr(info, "info", info))


def _stage_names(model: Any, stride_of: dict[str, int]) -> list[str]:
    """Return the names of the stages: timm's feature_info has one per stride; siblings may share it."""
    parents = {info["module"].rpartition(".")[0]: None for info in _stage_info(model)}
    names = [info["module"] for info in _stage_info(model)]
    for parent in filter(None, parents):
        names += [f"{parent}.{child}" for child, _ in model.get_submodule(parent).named_children()]
    wanted = [name for name in names if stride_of.get(name) in STRIDES]
    return sorted(set(wanted), key=list(stride_of).index)


def _output_strides(name: str, model: Any) -> dict[str, int]:
    """Return each module's output stride in the order of execution, from a run on the meta device."""
    size, strides = 256, {}

    def record(module_name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] == output.shape[-2]:
                strides[module_name] = size // output.shape[-1]

        return hook

    for module_name, module in model.named_modules():
        module.register_forward_hook(record(module_name))
    try:
        with torch.device("meta"):
            model.eval().forward_features(torch.empty(1, 3, size, size))
    except (AssertionError, RuntimeError) as error:
        raise ModelError(
            f"Backbone '{name}' does not accept images of any size. Use a convolutional network, "
            "such as resnet50 or efficientnet_lite0."
        ) from error
    return strides
