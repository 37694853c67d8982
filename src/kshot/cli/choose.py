"""`kshot choose`: choose the best of several checkpoints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kshot.cli.options import BackboneWeights, Data, Device, Fold, Root, load_segmenter

EXAMPLES = (
    "kshot choose runs/a runs/b --data pascal --root VOC2012 --fold 0 --out chosen",
    "kshot choose runs/a runs/b --data coco --root coco --fold 2 --select-on novel --out chosen",
)


def choose(
    models: Annotated[list[Path], typer.Argument(help="Folders of models.", metavar="MODEL_DIR…")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the chosen model.", metavar="DIR")],
    root: Root = None,
    fold: Fold = 0,
    select_on: Annotated[
        Literal["base", "novel"],
        typer.Option(
            help="Episodes of the fold's holdout base classes, or of its novel ones (the field's habit)."
        ),
    ] = "base",
    num_episodes: Annotated[
        int, typer.Option("--episodes", help="Number of episodes to choose on.", min=1)
    ] = 200,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
) -> None:
    """Choose the best of several models, and record in its config what it was chosen on."""
    from kshot.data.benchmarks import open_dataset
    from kshot.data.protocols import SELECTION_NOTES
    from kshot.evaluation.selection import check_holdout_classes, selection_fold, selection_manifest

    dataset = open_dataset(data, root)
    manifest, protocol = selection_manifest(selection_fold(data, fold, select_on), num_episodes, dataset)

    from kshot.evaluation.score import score_model
    from kshot.io.progress import progress
    from kshot.methods.saving import save_model

    scored = []
    for path in models:
        segmenter = load_segmenter(str(path), backbone_weights=backbone_weights, device=device)
        if select_on == "base":
            check_holdout_classes(data, fold, segmenter.config.base_classes)
        with progress(path.name, "episodes") as on_progress:
            result = score_model(
                segmenter, dataset, [manifest], protocol, name=path.name, on_progress=on_progress
            )
        typer.echo(f"{100 * result.miou:5.1f} % mIoU  {path}")
        scored.append((result.miou, segmenter, path))
    _, best, path = max(scored, key=lambda item: item[0])
    save_model(best.config.model_copy(update={"selected_on": select_on}), best.method, out)
    typer.echo(f"{path} is written to {out}: {SELECTION_NOTES[select_on]}.")
