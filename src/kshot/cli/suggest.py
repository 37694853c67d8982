"""`kshot suggest`: find the images to label next."""

from typing import Annotated

import typer

from kshot.cli.options import (
    BackboneName,
    BackboneWeights,
    Classes,
    Device,
    ImageSize,
    Json,
    Model,
    SupportFile,
    SupportImages,
    SupportPairs,
    load_segmenter,
    report,
)
from kshot.cli.segment import Queries, check_support_options, find_support_files, read_support_set
from kshot.methods.hub import DEFAULT_MODEL

EXAMPLES = (
    "kshot suggest images/ --support cup.jpg cup_mask.png",
    "kshot suggest images/ --support-set labels.json --classes cup --count 10 --json next.json",
)


def suggest(
    unlabelled: Queries,
    support_pairs: SupportPairs = None,
    support_set: SupportFile = None,
    support_images: SupportImages = None,
    classes: Classes = "",
    count: Annotated[int, typer.Option(help="Number of images to suggest.", min=1)] = 5,
    json_file: Json = None,
    model: Model = DEFAULT_MODEL,
    image_size: ImageSize = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
) -> None:
    """Suggest the images whose labels would help most, beside those that are labelled already.

    Exit status: 0 all images were used, 1 some could not be read, 2 nothing could be done.
    """
    from kshot.io.images import list_images

    values = check_support_options(support_pairs, support_set, support_images, classes)
    files = find_support_files(support_pairs)
    labelled = {image.resolve() for image, _ in files}
    images = [path for path, _ in list_images(unlabelled) if path.resolve() not in labelled]
    supports = read_support_set(files, support_set, support_images, values)
    segmenter = load_segmenter(
        model, image_size=image_size, backbone=backbone, backbone_weights=backbone_weights, device=device
    )
    from kshot.predict.suggest import suggest as find

    found = find(segmenter, supports.classes, images, count)
    report(map(str, found.label_next), found.model_dump_json(indent=2), json_file)
    for path, reason in found.failures.items():
        typer.echo(f"{path}: failed: {reason}", err=True)
    raise typer.Exit(1 if found.failures else 0)
