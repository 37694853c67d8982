"""What every few-shot segmentation method offers, and how a method gets its name.

A method of your own is a subclass of `Method` under `@register_method("name")`; docs/methods.md shows one.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kshot.methods.voting import segment_by_vote
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.plugins import Plugins
from kshot.types import Prediction, Segmentation, Support

if TYPE_CHECKING:
    from kshot.methods.config import ModelConfig


class Method(nn.Module):
    """A few-shot segmentation method. A subclass writes `from_config`, `features` and `match`."""

    needs_training: ClassVar[bool] = True
    """Whether it is of use only with weights that were meta-trained."""
    is_transductive: ClassVar[bool] = False
    """Whether the query's own features take part as if they were a support's."""
    supports_negatives: ClassVar[bool] = False
    """Whether `segment` can learn from images without the object."""
    matching_modules: ClassVar[tuple[str, ...]] = ()
    """Names of the submodules that take most of the time in `match`: bf16, if asked for, is for them."""

    threshold: float = 0.5
    """Foreground probability above which a pixel is part of the mask; 0.5 is the argmax."""

    @classmethod
    def from_config(cls, config: "ModelConfig", cls_backbone: Callable[[], Backbone]) -> Self:
        """Build the method with random learned weights. cls_backbone: makes B_cls, with its weights."""
        raise NotImplementedError

    @property
    def backbones(self) -> tuple[Backbone | None, Backbone | None]:
        """B_cls and B_sem; None for one that is not used."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Any:
        """Extract features of images (B, 3, H, W) in [0, 1]: tensors (B, ...) in any nest of tuples."""
        raise NotImplementedError

    def support_features(self, images: Tensor) -> Any:
        """Extract features of images (B, 3, H, W) in [0, 1] that are supports only, which may need less."""
        return self.features(images)

    def match(self, query: Any, support: Support, episode_class: Tensor | None = None) -> Prediction:
        """Segment a query with one shot: logits at decoder resolution.

        episode_class: (B,) index of each episode's base class, given in training.
        """
        raise NotImplementedError

    def match_each(
        self, query: Any, supports: Sequence[Support], episode_class: Tensor | None = None
    ) -> list[Prediction]:
        """Segment a query with each of K supports alone."""
        return [self.match(query, support, episode_class) for support in supports]

    def match_all(self, queries: Any, num_queries: int, support: Support) -> Tensor:
        """Segment each of B queries with each of K supports: logits (B K, 2, h, w), grouped by query.

        A method that merges its shots before it compares returns (B, 2, h, w). For exported graphs.
        """
        b, k = num_queries, support.mask.shape[0]

        def each_query(features: Tensor) -> Tensor:
            return features[:, None].expand(b, k, *features.shape[1:]).flatten(0, 1)

        def each_support(features: Tensor) -> Tensor:
            return features[None].expand(b, k, *features.shape[1:]).flatten(0, 1)

        pairs = tree_map_only(Tensor, each_query, queries), tree_map_only(Tensor, each_support, support)
        return self.match(*pairs).final

    def segment(
        self,
        query: Any,
        supports: Sequence[Support],
        size: tuple[int, int],
        negatives: Sequence[Support] = (),
    ) -> Segmentation:
        """Segment a query with K shots, by vote, at `size` = (height, width).

        negatives: images without the object, with empty masks; empty unless `supports_negatives`.
        """
        return segment_by_vote(self.match_each(query, supports), size, self.threshold)

    def pyramid(self, features: Any) -> FeaturePyramid:
        """Return the backbone's features out of what `features` returned, to compare whole images."""
        raise NotImplementedError

    def without_class(self, query: Any, episode_class: Tensor) -> Any:
        """Return a query's features as if base class (B,) were unknown; -1 keeps all."""
        return query


METHODS: Plugins[type[Method]] = Plugins("method", "kshot.methods")
"""Methods by name."""

register_method = METHODS.register
