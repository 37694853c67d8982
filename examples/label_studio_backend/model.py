"""A Label Studio ML backend: it segments tasks like those that are annotated so far.

An annotation that is made or changed becomes a support of its labels; nothing is trained.
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
from regions import DRAW

from kshot import KshotError, Segmenter
from kshot.annotations.label_studio import read_label_studio
from kshot.io.images import read_image

MOST_SUPPORTS = 5
"""Annotated tasks of a label that are learnt from: the latest."""

load_model = cache(Segmenter.from_pretrained)


class KshotBackend(LabelStudioMLBase):
    """Label Studio makes one for each request; so what was annotated is kept by `set`, and found by `get`."""

    def setup(self):
        """Name the version that predictions carry."""
        self.set("model_version", "kshot")

    def fit(self, event, data, **kwargs):
        """Keep an annotation that was made or changed; forget one that was deleted, skipped or emptied."""
        annotation = data.get("annotation")
        if annotation is None:
            return  # START_TRAINING: there is nothing to train
        kept = [task for task in self.annotated() if task["annotations"][0]["id"] != annotation["id"]]
        is_usable = annotation.get("result") and not annotation.get("was_cancelled")
        if event != "ANNOTATION_DELETED" and is_usable:
            kept.append({**{key: data["task"][key] for key in ("id", "data")}, "annotations": [annotation]})
        self.set("annotated", json.dumps(kept))

    def predict(self, tasks, context=None, **kwargs):
        """Segment tasks. Nothing is predicted before the first annotation, or for a broken picture."""
        examples = self.examples()
        if not examples:
            return [prediction([]) for _ in tasks]
        model = load_model(os.environ.get("KSHOT_MODEL", "prototype"))
        segmenter = model.clone().fit(examples)
        return [prediction(self.regions(segmenter, task)) for task in tasks]

    def regions(self, segmenter, task):
        """Segment a task: the regions of each label, as Label Studio draws them."""
        try:
            picture = read_image(self.path_of(task))
        except (KshotError, OSError) as error:
            logging.warning("Task %s: %s", task["id"], error)
            return []
        result = segmenter.predict(picture)
        name, control = self.control()
        kind = control["type"].lower()
        about = {"from_name": name, "to_name": control["to_name"][0], "type": kind, "image_rotation": 0}
        about |= {"original_width": picture.width, "original_height": picture.height}
        return [
            about | {"value": value | {kind: [label]}, "score": score}
            for label, found in ((name, result.of_class(name)) for name in result.class_names)
            for value, score in DRAW[kind](found.mask, found.probability)
        ]

    def annotated(self):
        """Give the annotated tasks, each with one annotation, the oldest first."""
        return json.loads(self.get("annotated") or "[]")

    def examples(self):
        """Give each label's pictures and masks; an annotation that cannot be used is passed over."""
        examples = defaultdict(list)
        for task in reversed(self.annotated()):
            pictures = SimpleNamespace(find=lambda *names, task=task: self.path_of(task))
            try:
                (photograph,) = read_label_studio([task], Path(f"Task {task['id']}"), pictures).photographs
                path, masks = photograph.read()
            except (KshotError, OSError) as error:
                logging.warning("Task %s is not learnt from: %s", task["id"], error)
                continue
            for label, mask in masks.items():
                if len(examples[label]) < MOST_SUPPORTS:
                    examples[label].append((path, mask))
        return examples

    def path_of(self, task):
        """Fetch a task's picture."""
        key = self.control()[1]["inputs"][0]["value"]
        return self.get_local_path(task["data"][key], task_id=task["id"])

    def control(self):
        """Find the tag that draws: its name, and what the labelling configuration says of it."""
        for name, control in self.parsed_label_config.items():
            if control["type"].lower() in DRAW:
                return name, control
        raise KshotError("The labelling configuration has neither <BrushLabels> nor <PolygonLabels>.")


def prediction(regions):
    """Wrap regions; Label Studio sorts tasks by the score, their mean probability."""
    scores = [region["score"] for region in regions]
    return {"result": regions, "score": float(np.mean(scores)) if scores else 0.0}
