"""The interface of few-shot segmentation methods, and their names.

Your own method is a subclass of `Method` with the decorator `@register_method("name")`; see docs/methods.md.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from kshot.errors import ModelError
from kshot.methods.voting import segment_by_vote
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.plugins import Plugins
from kshot.types import Prediction, Segmentation, Support

if TYPE_CHECKING:
    from kshot.methods.config import ModelConfig


class Method(nn.Module):
    """A few-shot segmentation method. A subclass defines `features`, and `match` or `segment`.

    The default constructor is for a method that learns nothing: it keeps one ImageNet backbone as
    `cls_backbone`. threshold: foreground probability above which a pixel is part of the mask; None: the
    class's own.
    """

    needs_training: ClassVar[bool] = True
    """Whether it needs meta-trained weights."""
    is_transductive: ClassVar[bool] = False
    """Whether the query's own features are used as support features, too."""
    supports_negatives: ClassVar[bool] = False
    """Whether `segment` uses images without the object."""
    adapts: ClassVar[bool] = False
    """Whether `adapt` learns something, without which `match` is another, simpler prediction."""
    matching_modules: ClassVar[tuple[str, ...]] = ()
    """Names of the submodules that take most of the time in `match`; precision="bf16" applies to them."""

    threshold: float = 0.5
    """Foreground probability above which a pixel is part of the mask; 0.5 is the argmax."""

    def __init__(self, cls_backbone: Backbone | None = None, *, threshold: float | None = None) -> None:
        super().__init__()
        if threshold is not None:
            self.threshold = threshold
        if cls_backbone is not None:
            self.add_module("cls_backbone", cls_backbone)

    @classmethod
    def from_config(cls, config: "ModelConfig", cls_backbone: Callable[[], Backbone]) -> Self:
        """Build the method with random learned weights. cls_backbone: makes B_cls, with its weights."""
        return cls(cls_backbone(), threshold=config.threshold)

    @property
    def backbones(self) -> tuple[Backbone | None, Backbone | None]:
        """B_cls and B_sem; None for one that is not used."""
        return getattr(self, "cls_backbone", None), getattr(self, "sem_backbone", None)

    def features(self, images: Tensor) -> Any:
        """Extract features of images (B, 3, H, W) in [0, 1]: tensors (B, ...) in any nest of tuples."""
        raise self._lacks("features")

    def support_features(self, images: Tensor) -> Any:
        """Extract features of images (B, 3, H, W) in [0, 1] that are only supports, which may cost less."""
        return self.features(images)

    def match(self, query: Any, support: Support, episode_class: Tensor | None = None) -> Prediction:
        """Segment a query with one shot: logits at decoder resolution.

        episode_class: (B,) index of each episode's base class, given in training.
        """
        raise self._lacks("match")

    def match_each(
        self, query: Any, supports: Sequence[Support], episode_class: Tensor | None = None
    ) -> list[Prediction]:
        """Segment a query with each of K supports separately."""
        return [self.match(query, support, episode_class) for support in supports]

    def match_all(self, queries: Any, num_queries: int, support: Support) -> Tensor:
        """Segment each of B queries with each of K supports: logits (B K, 2, h, w), grouped by query.

        A method that merges its shots before it compares returns (B, 2, h, w). Exported graphs use this.
        """
        b, k = num_queries, support.mask.shape[0]

        def each_query(features: Tensor) -> Tensor:
            return features[:, None].expand(b, k, *features.shape[1:]).flatten(0, 1)

        def each_support(features: Tensor) -> Tensor:
            return features[None].expand(b, k, *features.shape[1:]).flatten(0, 1)

        pairs = tree_map_only(Tensor, each_query, queries), tree_map_only(Tensor, each_support, support)
        return self.match(*pairs).final

    def adapt(self, supports: Sequence[Support], negatives: Sequence[Support] = ()) -> Any:
        """Learn from a support set, once for all queries; None: there is nothing to learn."""
        return None

    def segment(
        self,
        query: Any,
        supports: Sequence[Support],
        size: tuple[int, int],
        negatives: Sequence[Support] = (),
    ) -> Segmentation:
        """Segment a query with K shots, by vote, at `size` = (height, width).

        negatives: images without the object, with empty masks; empty unless `supports_negatives`. A method
        that defines `adapt` takes one more argument, `adapted`: what that returned for the same supports.
        """
        return segment_by_vote(self.match_each(query, supports), size, self.threshold)

    def pyramid(self, features: Any) -> FeaturePyramid:
        """Return the backbone's part of what `features` returned, to compare images (`kshot suggest`)."""
        raise self._lacks("pyramid")

    def without_class(self, query: Any, episode_class: Tensor) -> Any:
        """Return a query's features as if base class (B,) were unknown; -1 keeps all."""
        return query

    def _lacks(self, name: str) -> ModelError:
        return ModelError(
            f"The method {type(self).__name__} has no `{name}`, which is needed here. Define it in the "
            "class, as docs/methods.md says, or use another model."
        )


METHODS: Plugins[type[Method]] = Plugins(
    "method",
    "kshot.methods",
    {
        "prototype": "kshot.methods.prototype",
        "hsnet": "kshot.methods.hsnet",
        "two-pass": "kshot.methods.two_pass",
        "adaptive": "kshot.methods.adaptive",
    },
    ModelError,
)
"""Methods by name."""

register_method = METHODS.register
