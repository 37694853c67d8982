"""The field's split lists, which ship with kshot; `splits/README.md` names their sources."""

import hashlib
import lzma
from importlib.resources import files

from kshot.errors import DataError

SHA256 = {
    "coco_mini_60": "0a6e0d643be3873b4f7e6888acb0222379d9a38ed829f2347a767d81393e1ec0",
    "coco20i/train": "9342977eafa66f29a4482c12599c0a9a2ce189a42ee4b45e1a664640ba0d3e69",
    "coco20i/val": "24a2e2abe94d4aa05cfcd3b70ada079c18d99ab79543a947e64a1de72dae559d",
    "fss1000/test": "26f1b9e9dd0c4a58c01db306aeb5bccb5de361d544ec1b15f219efc4b74c0bf1",
    "fss1000/train": "815bce03f2502719ba3bd9c1f79111b74ec8ab63e6111830ff7312de49b1cf17",
    "fss1000/val": "9cac02c58602f2789b4e6393200e450e3ba1edae6673d6a87ae2063d0c547aee",
    "pascal5i/train_fold0": "40fded8be6afbc4b70953277f2a178af8055cddd4e73fb4646b7bf19704b9da2",
    "pascal5i/train_fold1": "558167c3c6fea0cda1bb7c7a275e66d5de7bc13cbc97e00c5872ac84d5f0954e",
    "pascal5i/train_fold2": "d07e35f4a4ae95774c619bafb57d65d682dbd5b9f33c7f71a4f5cef8e3f99609",
    "pascal5i/train_fold3": "ffe09100c0c4d9c19d074a33b0f29fe5a89a730579ba39a9f9e908186298ac17",
    "pascal5i/val_fold0": "748e2f4732ac502cb3aa1f3768936b394bd7ba4e611ac5bf959291a268e249df",
    "pascal5i/val_fold1": "afce1929e4dacbc13c07f9a26d4ce7738d415e1b18443fe173e58303836f5c14",
    "pascal5i/val_fold2": "50b1f5218e8f882ca65d85da5be230b978a70067e9b3e0e9fca1528f546bd7fb",
    "pascal5i/val_fold3": "c3825d7c52d1608d4c62c5b85d6ef3f74cf5898032bc068a94c971df17bdf71a",
}
"""sha256 of each list's uncompressed text."""


def read_list(name: str) -> list[str]:
    """Return the lines of a list. Raises DataError if its sha256 differs."""
    packed = (files("kshot") / "data" / "splits" / f"{name}.txt.xz").read_bytes()
    text = lzma.decompress(packed)
    digest = hashlib.sha256(text).hexdigest()
    if digest != SHA256[name]:
        raise DataError(
            f"The list {name} that came with kshot has sha256 {digest[:12]}…, but should have "
            f"{SHA256[name][:12]}…. The installation is damaged; install kshot again."
        )
    return text.decode().splitlines()


def pascal_pairs(split: str, fold: int) -> list[tuple[str, int]]:
    """Return a fold's own (image, class id) pairs, in the order of the field's file."""
    pairs = (line.split("__") for line in read_list(f"pascal5i/{split}_fold{fold}"))
    return [(name, int(number) - 1) for name, number in pairs]


def class_images(name: str) -> dict[int, list[str]]:
    """Return each class's images, in order, from a list with lines `class_id image image …`."""
    lines = (line.split() for line in read_list(name))
    return {int(class_id): images for class_id, *images in lines}


def fss_classes(split: str) -> list[str]:
    """Return the names of the FSS-1000 classes of a split, sorted (HSNet's order)."""
    return sorted(read_list(f"fss1000/{split}"))
