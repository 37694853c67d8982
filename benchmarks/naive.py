"""The two-pass method computed plainly, as the papers describe it: the yardstick of speed and of exactness.

Nothing is read once that could be read again: every shot is a full forward pass, with both backbones on the
query and on the support. The whole correlation volume is made and multiplied by the mask; strides pick
positions out of it by index; and every convolution gets a copy with the axes that it wants.

Axis letters: B batch, K shots, C channels, H W query rows and columns, U V support's: here the query's first.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import Backbone
from kshot.models.base_learner import PyramidPoolingHead
from kshot.models.conv4d import CenterPivotConv4d
from kshot.models.encoder import Conv4dBlock, support_strides
from kshot.models.kernels.onednn import PointwiseConv2d
from kshot.types import Prediction

Maps = list[list[Tensor]]
"""The taps of each stage, strides 8, 16, 32."""


class Naive:
    """Runs the weights of a two-pass model, and none of its ways of doing so."""

    def __init__(self, model: TwoPass) -> None:
        self.model = model
        self.cls_backbone = as_timm_builds_it(model.cls_backbone)
        self.sem_backbone = as_timm_builds_it(model.sem_backbone)

    def predict(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> list[Prediction]:
        """Predict with each shot: images (B, 3, H, W) and (B, K, 3, H, W), masks (B, K, 1, H, W)."""
        shots = zip(support_images.unbind(1), support_masks.unbind(1), strict=True)
        return [self.forward(query_image, image, mask) for image, mask in shots]

    def vote(self, predictions: list[Prediction], size: tuple[int, int]) -> Tensor:
        """Let the shots' masks vote, at `size` = (height, width): (B, H, W) bool."""
        masks = [upsample(p.final, size).argmax(dim=1) for p in predictions]
        votes = torch.stack(masks).sum(dim=0).float()
        return votes / votes.amax(dim=(1, 2), keepdim=True).clamp(min=1) >= 0.5

    def forward(self, query_image: Tensor, support_image: Tensor, support_mask: Tensor) -> Prediction:
        """Run one shot from the images on."""
        cls_query, _ = read(self.cls_backbone, query_image)
        cls_support, _ = read(self.cls_backbone, support_image)
        sem_query, deepest = read(self.sem_backbone, query_image)
        sem_support, _ = read(self.sem_backbone, support_image)
        base_logits = classify(self.model.base_head, deepest)
        return self.match(cls_query, cls_support, sem_query, sem_support, support_mask, base_logits)

    def match(
        self,
        cls_query: Maps,
        cls_support: Maps,
        sem_query: Maps,
        sem_support: Maps,
        support_mask: Tensor,
        base_logits: Tensor,
        episode_class: Tensor | None = None,
    ) -> Prediction:
        """Run both passes and the fusion from features on."""
        matcher = self.model.matcher
        cls = self.encode(cls_query, cls_support, support_mask)
        sem = self.encode(sem_query, sem_support, support_mask)
        combined = decode(matcher.joint_decoder, torch.cat([cls, sem], dim=1))
        soft_mask = combined.softmax(dim=1)[:, 1:]
        second = decode(matcher.decoder, self.encode(sem_query, sem_query, soft_mask))
        probabilities = base_logits.softmax(dim=1)[:, 1:]
        if episode_class is not None:
            own = F.one_hot(episode_class, probabilities.shape[1])[..., None, None]
            probabilities = probabilities * (1 - own)
        base_map = probabilities.sum(dim=1, keepdim=True)
        fusion = self.model.fusion
        background, foreground = second.softmax(dim=1).split(1, dim=1)
        background, foreground = fusion.conv_b(background), fusion.conv_b(foreground)
        base = upsample(base_map, second.shape[-2:])
        background = fusion.conv_a(torch.cat([background, base], dim=1))
        final = torch.cat([background, foreground], dim=1)
        by_cls, by_sem = decode(matcher.decoder, cls), decode(matcher.decoder, sem)
        return Prediction(final, by_cls, by_sem, combined, second, base_map)

    def encode(self, query: Maps, support: Maps, mask: Tensor) -> Tensor:
        """Correlate all with all, and encode: (B, C, H, W) at stride 8."""
        encoder = self.model.matcher.encoder
        volumes = [correlate(q, s, mask) for q, s in zip(query, support, strict=True)][::-1]
        strides = support_strides(volumes[0].shape[-2:])
        squeezed = [
            block(layers, volume, steps)
            for layers, volume, steps in zip(encoder.squeeze, volumes, strides, strict=True)
        ]
        mixed = squeezed[0]
        for layers, finer in zip(encoder.mix, squeezed[1:], strict=True):
            mixed = block(layers, upsample_query(mixed, finer.shape[2:4]) + finer, [(1, 1)] * 3)
        return mixed.mean(dim=(-2, -1))


def as_timm_builds_it(backbone: Backbone) -> Backbone:
    """Share a backbone's weights with one that computes as timm's own does."""
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    plain = copy.deepcopy(backbone, shared)
    for module in plain.modules():
        if isinstance(module, PointwiseConv2d):
            module.__class__ = nn.Conv2d
    plain.memory_format = torch.contiguous_format
    return plain


def read(backbone: Backbone, images: Tensor) -> tuple[Maps, Tensor]:
    """Run a backbone: its taps, and its deepest features."""
    pyramid = backbone(images)
    return [list(taps) for taps in pyramid.stages], pyramid.last


def classify(head: PyramidPoolingHead, deepest: Tensor) -> Tensor:
    """Classify positions by what is pooled at four scales: (B, 1 + base classes, h, w)."""
    pooled = [upsample(pool(deepest), deepest.shape[-2:]) for pool in head.pools]
    return head.classify(torch.cat([deepest, *pooled], dim=1))


def correlate(query: list[Tensor], support: list[Tensor], mask: Tensor) -> Tensor:
    """Correlate one stage's taps: (B, taps, H, W, U, V)."""
    taps = []
    for q, s in zip(query, support, strict=True):
        b, _, h, w = q.shape
        u, v = s.shape[-2:]
        q = q.flatten(2) / (q.flatten(2).norm(dim=1, keepdim=True) + 1e-5)
        s = s.flatten(2) / (s.flatten(2).norm(dim=1, keepdim=True) + 1e-5)
        cosine = (q.transpose(1, 2) @ s).clamp(min=0).view(b, h, w, u, v)
        taps.append(cosine * upsample(mask, (u, v))[:, 0, None, None])
    return torch.stack(taps, dim=1)


def block(layers: Conv4dBlock, volume: Tensor, strides: list[tuple[int, int]]) -> Tensor:
    """Run a block's convolutions, norms and ReLUs on (B, C, H, W, U, V)."""
    for layer, norm, stride in zip(layers.convs, layers.norms, strides, strict=True):
        volume = F.relu(norm(center_pivot(layer, volume, stride)))
    return volume


def center_pivot(layer: CenterPivotConv4d, volume: Tensor, stride: tuple[int, int]) -> Tensor:
    """Convolve the query's axes where the stride keeps positions, and the support's axes; add both."""
    b, _, h, w, u, v = volume.shape
    rows, columns = (torch.arange(0, n, s, device=volume.device) for n, s in zip((u, v), stride, strict=True))
    pruned = volume.index_select(4, rows).index_select(5, columns)
    images = pruned.permute(0, 4, 5, 1, 2, 3).reshape(-1, volume.shape[1], h, w)
    by_query = layer.query_conv(images)
    by_query = by_query.view(b, len(rows), len(columns), -1, h, w).permute(0, 3, 4, 5, 1, 2)
    images = volume.permute(0, 2, 3, 1, 4, 5).reshape(-1, volume.shape[1], u, v)
    convolution = layer.support_conv
    by_support = F.conv2d(images, convolution.weight, convolution.bias, stride, convolution.padding)
    by_support = by_support.view(b, h, w, -1, len(rows), len(columns)).permute(0, 3, 1, 2, 4, 5)
    return by_query + by_support


def upsample_query(volume: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize the query's axes of (B, C, H, W, U, V)."""
    b, c, h, w, u, v = volume.shape
    images = volume.permute(0, 4, 5, 1, 2, 3).reshape(-1, c, h, w)
    return upsample(images, size).view(b, u, v, c, *size).permute(0, 3, 4, 5, 1, 2)


def decode(decoder: nn.Module, encoded: Tensor) -> Tensor:
    """Run a decoder: two convolutions, twice the size, two more."""
    x = decoder.coarse(encoded)
    return decoder.fine(upsample(x, (2 * x.shape[-2], 2 * x.shape[-1])))


def upsample(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize bilinearly, corners on corners."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
