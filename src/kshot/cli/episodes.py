"""`kshot episodes`: write a benchmark's episodes to a manifest."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.cli.options import Data, Fold, ProtocolName, Root, Shots, Split
from kshot.errors import DataError

EXAMPLES = (
    "kshot episodes --data pascal --fold 0 --out pascal-0.json",
    "kshot episodes --data coco --fold 2 --shots 5 --protocol hsnet --out coco-2.json",
)


def episodes(
    data: Data,
    out: Annotated[Path, typer.Option(help="Manifest to write.", metavar="FILE.json")],
    fold: Fold = 0,
    shots: Shots = 1,
    protocol_name: ProtocolName = None,
    num_episodes: Annotated[
        int | None,
        typer.Option("--episodes", help="Number of episodes; default: the protocol's.", min=1),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the protocol's first.")] = None,
    split: Split = None,
    holdout: Annotated[
        bool,
        typer.Option("--holdout", help="Episodes of the fold's holdout classes, to choose a model on them."),
    ] = False,
    root: Root = None,
) -> None:
    """Write a benchmark's episodes to a manifest. The field's lists ship with kshot; no images are needed.

    With --root, only images that are in that folder are drawn.
    """
    from kshot.data.benchmarks import benchmark_of, open_dataset, read_fold
    from kshot.data.manifest import draw_manifest, write_manifest
    from kshot.data.protocols import default_protocol, preset
    from kshot.evaluation.selection import selection_fold

    benchmark = benchmark_of(data)
    protocol = preset(protocol_name or default_protocol(benchmark), benchmark)
    if num_episodes is not None:
        protocol = protocol.model_copy(update={"num_episodes": num_episodes})
    present = None if root is None else open_dataset(data, root)
    if holdout and split not in (None, "train"):
        raise DataError(f"--holdout draws from the train lists, but --split is {split}. Leave it out.")
    pairs = selection_fold(benchmark, fold, "base") if holdout else read_fold(data, fold, split)
    manifest = draw_manifest(pairs, protocol, shots, protocol.seeds[0] if seed is None else seed, present)
    write_manifest(manifest, out)
    report_small_classes(manifest.left_out, shots)
    typer.echo(f"{len(manifest.episodes)} episodes in {out}, sha256 {manifest.sha256}")


def report_small_classes(left_out: dict[str, int], shots: int, num_queries: int = 1) -> None:
    """Print the classes that have too few images for an episode, with their numbers of images."""
    if left_out:
        named = ", ".join(f"{name} ({number})" for name, number in left_out.items())
        needs = f"the {shots + num_queries} images of {'an episode' if num_queries == 1 else 'a task'}"
        typer.echo(f"Excluded, with fewer than {needs}: {named}.", err=True)
