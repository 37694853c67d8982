"""`kshot tune-threshold`: choose a model's foreground threshold."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.cli.options import BackboneWeights, Data, Device, Fold, Root, load_segmenter

EXAMPLES = (
    "kshot tune-threshold runs/a --data pascal --root VOC2012 --fold 0",
    "kshot tune-threshold runs/a --data my-folder --episodes 100",
)


def tune_threshold(
    model: Annotated[Path, typer.Argument(help="Folder of a model; its config is changed.", metavar="DIR")],
    data: Data,
    root: Root = None,
    fold: Fold = 0,
    num_episodes: Annotated[
        int, typer.Option("--episodes", help="Number of episodes of base classes to tune on.", min=1)
    ] = 300,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
) -> None:
    """Tune the threshold: the probability above which a pixel is foreground, on a fold's base classes."""
    from kshot.data.benchmarks import open_dataset

    dataset = open_dataset(data, root)

    from kshot.evaluation.thresholds import score_thresholds
    from kshot.io.progress import progress
    from kshot.methods.hub import CONFIG_FILE
    from kshot.methods.saving import read_config, write_config

    config = read_config(model / CONFIG_FILE)
    segmenter = load_segmenter(str(model), backbone_weights=backbone_weights, device=device)
    with progress("Tuning the threshold", "episodes") as on_progress:
        scores = score_thresholds(segmenter, dataset, data, fold, num_episodes, on_progress)
    best = max(scores, key=lambda threshold: scores[threshold])
    for threshold, miou in scores.items():
        marks = [" chosen"] * (threshold == best) + [" before"] * (threshold == config.threshold)
        typer.echo(f"{threshold:.2f} {100 * miou:5.1f} % mIoU{','.join(marks)}")
    write_config(config.model_copy(update={"threshold": best}), model / CONFIG_FILE)
