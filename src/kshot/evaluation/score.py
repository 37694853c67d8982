"""From a benchmark's name to a result: draw the manifests, run them, put the scores together."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kshot.data.base import Dataset
from kshot.data.benchmarks import read_fold
from kshot.data.manifest import Manifest, draw_manifest
from kshot.data.protocols import Protocol, default_protocol, preset
from kshot.errors import DataError
from kshot.io.provenance import record_provenance
from kshot.models.feature_cache import CACHE_GB

if TYPE_CHECKING:
    from kshot.evaluation.results import Result
    from kshot.segmenter import Segmenter


def draw_manifests(data: str, fold: int, split: str | None, protocol: Protocol, shots: int) -> list[Manifest]:
    """Draw the episodes of every seed of a protocol."""
    pairs = read_fold(data, fold, split)
    return [draw_manifest(pairs, protocol, shots, seed) for seed in protocol.seeds]


def choose_protocol(
    benchmark: str,
    manifests: Sequence[Manifest],
    name: str | None = None,
    num_episodes: int | None = None,
    seeds: tuple[int, ...] = (),
) -> Protocol:
    """Give the protocol to run: the manifests', or the named one (else the benchmark's) with what was asked.

    Raises DataError if manifests are given and something that they fix already, or don't belong together.
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
    """Raise DataError if something was asked for that is otherwise in the manifest."""
    for what, value in asked.items():
        fixed = getattr(manifest, what)
        if value not in (None, fixed):
            option = "--set split" if what == "split" else f"--{what}"
            raise DataError(f"{option} is {value}, but the manifest's is {fixed}. Leave it out.")


def score_model(
    segmenter: "Segmenter",
    name: str,
    dataset: Dataset,
    manifests: Sequence[Manifest],
    protocol: Protocol,
    *,
    num_workers: int = 0,
    cache_gb: float = CACHE_GB,
    arguments: Iterable[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> "Result":
    """Run manifests and score them. `protocol` says at which size, and where it is scored."""
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
    model = record_model(name, segmenter)
    return make_result(
        manifests, runs, protocol, size, model, provenance.with_duration(time.monotonic() - start)
    )
