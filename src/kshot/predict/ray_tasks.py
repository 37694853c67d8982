"""Segment many images on Ray: each share of the images is a task that runs the command with --shard.

Ray restarts a task whose worker died. Progress is recorded in the results folder, as without Ray, so all
machines need that folder, the images and kshot under the same paths.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kshot.errors import KshotError, reason_of
from kshot.io.extras import import_extra

RETRIES = 3
"""Times that a share is restarted if its worker dies."""


def segment_on_ray(
    run: Callable[[list[str]], None], arguments: Sequence[str], num_shards: int, device: torch.device
) -> int:
    """Run the shares of a `segment` command on Ray's cluster, or on this machine's cores without one.

    run: the command, which ends with SystemExit. arguments: its arguments, with --ray. device: where tasks
    compute; each takes a core, and a GPU if the device is "cuda". Returns the highest exit status.
    Raises KshotError if Ray is not installed, or if a share failed RETRIES + 1 times.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # off unless the user turns it on
    ray = import_extra("ray", "--ray needs Ray", "ray")
    ray.init()
    num_gpus = int(device.type == "cuda")
    task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=num_gpus)(run_in)
    here, given = str(Path.cwd()), _without_ray(arguments)
    shards = [[*given, "--shard", f"{number}/{num_shards}"] for number in range(1, num_shards + 1)]
    try:
        statuses: list[int] = ray.get([task.remote(here, run, shard) for shard in shards])
        return max(statuses)
    except ray.exceptions.RayError as error:
        raise KshotError(
            f"A share failed on Ray ({reason_of(error)}). Run the same command again to continue."
        ) from error
    finally:
        ray.shutdown()


def run_in(folder: str, run: Callable[[list[str]], None], arguments: list[str]) -> int:
    """Run a command in a folder, which its relative paths start from; return its exit status."""
    os.chdir(folder)
    try:
        run(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _without_ray(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without `--ray N` or `--ray=N`."""
    places = {index + 1 for index, argument in enumerate(arguments) if argument == "--ray"}
    return [
        argument
        for index, argument in enumerate(arguments)
        if index not in places and argument.partition("=")[0] != "--ray"
    ]
