"""Small images, masks and networks for the tests; nothing here is random without a seed."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from kshot.methods.hsnet import HSNet
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass
from kshot.network.backbones import Backbone, FeaturePyramid
from kshot.network.base_learner import PSPNet

TINY = "test_resnet"
"""timm's smallest ResNet: same taps as the large ones, milliseconds a pass."""

NUM_BASE_CLASSES = 4


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


def tiny_method(name: str, seed: int = 0) -> nn.Module:
    cls = tiny_backbone(seed=seed)
    torch.manual_seed(seed + 1)
    base_learner = PSPNet(TINY, NUM_BASE_CLASSES)
    randomise_norms(base_learner, seed + 1)
    sem = base_learner.backbone
    methods = {
        "prototype": lambda: Prototype(cls),
        "hsnet-cls": lambda: HSNet(cls),
        "hsnet-sem": lambda: HSNet(None, sem),
        "hsnet-both": lambda: HSNet(cls, sem),
        "two-pass": lambda: TwoPass(cls, sem, base_learner.head),
        "two-pass-without-base": lambda: TwoPass(cls, sem, None),
    }
    return methods[name]().eval()


MATCHING_METHODS = ("hsnet-cls", "hsnet-sem", "hsnet-both", "two-pass", "two-pass-without-base")
METHODS = ("prototype", *MATCHING_METHODS)


def square_mask(batch=1, size=(96, 96)):
    mask = torch.zeros(batch, 1, *size)
    mask[..., size[0] // 4 : size[0] // 2, size[1] // 4 : (3 * size[1]) // 4] = 1
    return mask


def scene(width=120, height=90, left=20, seed=0):
    """Draw a red disc on green noise: a photograph-like image, and the disc's mask."""
    pixels = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[..., 1] += 80
    picture, mask = Image.fromarray(pixels), Image.new("1", (width, height))
    box = (left, 20, left + 45, 65)
    ImageDraw.Draw(picture).ellipse(box, fill=(220, 40, 30))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return picture, np.asarray(mask)


def iou(a, b):
    """Intersection over union of two bool masks."""
    return (a & b).sum() / (a | b).sum()
