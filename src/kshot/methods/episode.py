"""Run an episode: encode its images, segment the query.

`Segmenter`, evaluation, threshold tuning, validation and figures all use it; they differ only in the features
that they keep between episodes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_map_only

from kshot.methods.base import Method
from kshot.results import SegmentationResult
from kshot.transforms import Resize
from kshot.types import FloatMap, GroundTruth, Support


class EpisodeRunner(NamedTuple):
    """A method, its transform, and its device."""

    method: Method
    transform: Resize
    device: torch.device

    def features(self, images: Tensor, *, as_query: bool) -> Any:
        """Extract features of resized images (B, 3, size, size); a query's also serve as a support's."""
        extract = self.method.features if as_query else self.method.support_features
        with torch.inference_mode():
            return extract(images.to(self.device))

    def encode_query(self, *images: Image.Image) -> Any:
        """Extract the features of one or more queries; `select` returns those of one image."""
        return self.features(torch.cat([self.transform.image(one) for one in images]), as_query=True)

    def encode_support(self, image: Image.Image, mask: GroundTruth | NDArray[np.bool_]) -> Support:
        """Extract the features of a support image, and resize its mask (H, W)."""
        features = self.features(self.transform.image(image), as_query=False)
        return Support(features, self.support_mask(mask))

    def support_mask(self, mask: GroundTruth | NDArray[np.bool_]) -> Tensor:
        """Resize a support mask (H, W): (1, 1, size, size) on the device."""
        return self.transform.support_mask(mask).to(self.device)

    def adapt(self, supports: Sequence[Support], negatives: Sequence[Support] = ()) -> Any:
        """Let the method learn from a support set, once for all queries; None if it learns nothing."""
        with torch.inference_mode():
            return self.method.adapt(supports, negatives)

    def segment(
        self,
        query: Any,
        supports: Sequence[Support],
        size: tuple[int, int],
        negatives: Sequence[Support] = (),
        adapted: Any = None,
    ) -> SegmentationResult:
        """Segment an encoded query of `size` = (height, width) with K shots, and what `adapt` returned."""
        output_size = self.transform.output_size(*size)
        more = (
            () if adapted is None else (adapted,)
        )  # a method that does not adapt need not have the argument
        with torch.inference_mode():
            found = self.method.segment(query, supports, output_size, negatives, *more)

        def crop(maps: Tensor | None) -> FloatMap | None:
            return None if maps is None else self.transform.crop(maps[0].float().cpu().numpy(), *size)

        probability = crop(found.probability)
        assert probability is not None
        return SegmentationResult.of_one_class(
            self.transform.crop(found.mask[0].cpu().numpy(), *size),
            probability,
            first_pass=crop(found.first_pass),
            second_pass=crop(found.second_pass),
            base_map=crop(found.base_map),
        )


def select(features: Any, indices: Tensor | slice) -> Any:
    """Return the features of some images of a batch, in any nest of tuples; an index (N,) may repeat."""
    return tree_map_only(Tensor, lambda tensor: tensor[indices], features)


def move(features: Any, device: torch.device) -> Any:
    """Return features on another device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), features)
