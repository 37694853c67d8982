"""Settings of an evaluation beside its protocol. Imports no torch."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kshot.io.name_values import split_commas
from kshot.models.feature_cache import CACHE_GB


class EvaluationSettings(BaseModel):
    """Settings that `kshot evaluate --set` changes. None: the protocol's, the model's or the benchmark's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = ()
    """Seeds of the episodes; empty: the protocol's."""
    split: str | None = None
    """train, val or test."""
    image_size: int | None = Field(default=None, ge=1)
    """Side in pixels at which the network works."""
    scored_at: Literal["network", "original"] | None = None
    """Size at which masks are compared: the network's, or the image's own."""
    draws: int | None = Field(default=None, ge=1)
    """Support sets of each task of a suite; None: 3."""
    backbone: str | None = None
    """Another backbone, for prototype."""
    workers: int = Field(default=0, ge=0)
    """Processes that load data in parallel. They do not change the result."""
    cache_gb: float = Field(default=CACHE_GB, ge=0)
    """Memory for features in GiB."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else split_commas(value)
