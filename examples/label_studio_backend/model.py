"""A Label Studio ML backend that segments tasks with the annotated ones as support set.

A new or changed annotation becomes a support image of its labels; nothing is trained.
"""

import json
import logging
import os
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from label_studio_ml.model import LabelStudioMLBase
from regions import TO_REGION

from kshot import KshotError, Segmenter
from kshot.annotations.label_studio import read_label_studio
from kshot.io.images import read_image

MAX_SUPPORTS = 5
"""Maximum number of support images of a label: the latest annotated tasks."""

load_model = cache(Segmenter.from_pretrained)


class KshotBackend(LabelStudioMLBase):
    """The backend. Label Studio creates one per request, so annotations are stored with `set` and `get`."""

    def setup(self):
        """Set the model version of the predictions."""
        self.set("model_version", "kshot")

    def fit(self, event, data, **kwargs):
        """Store a new or changed annotation; remove one that was deleted, skipped or emptied."""
        annotation = data.get("annotation")
        if annotation is None:
            return  # START_TRAINING: there is nothing to train
        kept = [task for task in self.annotated() if task["annotations"][0]["id"] != annotation["id"]]
        is_usable = annotation.get("result") and not annotation.get("was_cancelled")
        if event != "ANNOTATION_DELETED" and is_usable:
            kept.append({**{key: data["task"][key] for key in ("id", "data")}, "annotations": [annotation]})
        self.set("annotated", json.dumps(kept))

    def predict(self, tasks, context=None, **kwargs):
        """Segment tasks. Without annotations, or with an unreadable image, the prediction is empty."""
        examples = self.examples()
        if not examples:
            return [prediction([]) for _ in tasks]
        model = load_model(os.environ.get("KSHOT_MODEL", "prototype"))
        segmenter = model.clone().fit(examples)
        return [prediction(self.regions(segmenter, task)) for task in tasks]

    def regions(self, segmenter, task):
        """Segment a task; return the regions of each label in Label Studio's format."""
        try:
            image = read_image(self.path_of(task))
        except (KshotError, OSError) as error:
            logging.warning("Task %s: %s", task["id"], error)
            return []
        result = segmenter.predict(image)
        name, control = self.control()
        kind = control["type"].lower()
        about = {"from_name": name, "to_name": control["to_name"][0], "type": kind, "image_rotation": 0}
        about |= {"original_width": image.width, "original_height": image.height}
        size = image.height, image.width
        shapes = ((found, TO_REGION[kind](found, size)) for found in result.instances())
        return [
            about | {"value": shape | {kind: [found.class_name]}, "score": found.score}
            for found, shape in shapes
            if shape is not None
        ]

    def annotated(self):
        """Return the annotated tasks, oldest first, each with one annotation."""
        return json.loads(self.get("annotated") or "[]")

    def examples(self):
        """Return the support images and masks of each label; skips annotations that cannot be used."""
        examples = defaultdict(list)
        for task in reversed(self.annotated()):
            images = SimpleNamespace(
                find=lambda *names, task=task: self.path_of(task), add_listed=lambda names: None
            )
            try:
                (annotated,) = read_label_studio([task], Path(f"Task {task['id']}"), images).images
                path, masks = annotated.read()
            except (KshotError, OSError) as error:
                logging.warning("Task %s cannot be used as a support: %s", task["id"], error)
                continue
            for label, mask in masks.items():
                if len(examples[label]) < MAX_SUPPORTS:
                    examples[label].append((path, mask))
        return examples

    def path_of(self, task):
        """Download the image of a task; return its path."""
        key = self.control()[1]["inputs"][0]["value"]
        return self.get_local_path(task["data"][key], task_id=task["id"])

    def control(self):
        """Return the name and the configuration of the brush or polygon tag."""
        for name, control in self.parsed_label_config.items():
            if control["type"].lower() in TO_REGION:
                return name, control
        raise KshotError("The labelling configuration has neither <BrushLabels> nor <PolygonLabels>.")


def prediction(regions):
    """Return regions as a prediction; its score, their mean probability, is what Label Studio sorts by."""
    scores = [region["score"] for region in regions]
    return {"result": regions, "score": float(np.mean(scores)) if scores else 0.0}
