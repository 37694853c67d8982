"""Score a model on the episodes of a protocol."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kshot.data.base import Dataset
from kshot.data.manifest import Manifest
from kshot.data.protocols import Protocol, default_protocol, preset
from kshot.errors import DataError
from kshot.io.provenance import record_provenance
from kshot.models.feature_cache import CACHE_GB

if TYPE_CHECKING:
    from kshot.evaluation.results import Result
    from kshot.segmenter import Segmenter


def choose_protocol(
    benchmark: str,
    manifests: Sequence[Manifest],
    name: str | None = None,
    num_episodes: int | None = None,
    seeds: tuple[int, ...] = (),
) -> Protocol:
    """Return the protocol of the manifests, or else the named one (default: the benchmark's) with changes.

    Raises DataError if manifests differ in what they must share, or if a setting is given that they fix.
    """
    if len(set(seeds)) < len(seeds):
        raise DataError(f"A seed was given twice ({seeds}); its episodes would count twice.")
    if not manifests:
        protocol = preset(name or default_protocol(benchmark), benchmark)
        changes = {"num_episodes": num_episodes, "seeds": seeds or None}
        return protocol.model_copy(update={k: v for k, v in changes.items() if v is not None})
    first = manifests[0]
    if name not in (None, first.protocol) or num_episodes is not None or seeds:
        raise DataError("A manifest fixes protocol, seed and number of episodes: leave these options out.")
    check_alike(manifests, benchmark)
    ran = {"num_episodes": len(first.episodes), "seeds": tuple(m.seed for m in manifests)}
    return preset(first.protocol, benchmark).model_copy(update=ran)


def check_alike(manifests: Sequence[Manifest], benchmark: str) -> None:
    """Raise DataError unless manifests are of one benchmark, protocol and number of shots."""
    first = manifests[0]
    for manifest in manifests:
        for field in ("benchmark", "split", "fold", "shots", "protocol", "classes"):
            if getattr(manifest, field) != getattr(first, field):
                raise DataError(f"The manifests cannot be scored together: their {field} differs.")
        if manifest.benchmark != benchmark:
            raise DataError(f"The manifest is of {manifest.benchmark}, but --data is {benchmark}.")
    if len({manifest.sha256 for manifest in manifests}) < len(manifests):
        raise DataError("One manifest was given twice; its episodes would count twice.")


def check_asked(manifest: Manifest, **asked: str | int | None) -> None:
    """Raise DataError if an option differs from the manifest."""
    for what, value in asked.items():
        fixed = getattr(manifest, what)
        if value not in (None, fixed):
            option = "--set split" if what == "split" else f"--{what}"
            raise DataError(f"{option} is {value}, but the manifest's is {fixed}. Leave it out.")


def score_model(
    segmenter: "Segmenter",
    dataset: Dataset,
    manifests: Sequence[Manifest],
    protocol: Protocol,
    *,
    name: str | None = None,
    num_workers: int = 0,
    cache_gb: float = CACHE_GB,
    arguments: Iterable[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> "Result":
    """Return a model's mIoU, FB-IoU and class IoUs on the episodes of manifests, with intervals.

    protocol: sets the network's size, and the size at which masks are scored. name: the model's name in the
    result; default: its method's. arguments: the command line, to be recorded.
    """
    # Imported here, since a command checks its options with the functions above before torch is imported.
    from kshot.evaluation.evaluator import evaluate
    from kshot.evaluation.results import make_result, make_run, record_model
    from kshot.transforms import Resize

    start, provenance = time.monotonic(), record_provenance(tuple(arguments))
    size = protocol.image_size or segmenter.config.image_size
    counted = evaluate(
        segmenter,
        dataset,
        manifests,
        Resize(size, protocol.fit),
        at_original_size=protocol.scored_at == "original",
        num_workers=num_workers,
        cache_gb=cache_gb,
        on_progress=on_progress,
    )
    runs = [make_run(*pair) for pair in zip(manifests, counted, strict=True)]
    model = record_model(name or segmenter.config.method, segmenter)
    return make_result(
        manifests, runs, protocol, size, model, provenance.with_duration(time.monotonic() - start)
    )
