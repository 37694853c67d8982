"""Find a model's folder: one that ships, one on this machine, or one on the Hugging Face hub.

Imports no torch, so that a command reports a wrong name at once.
"""

from importlib.resources import files
from pathlib import Path

from kshot.errors import ModelError, reason_of

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
DEFAULT_MODEL = "two-pass-general"


def list_models() -> list[str]:
    """Return the names of the models that ship with kshot."""
    return sorted(path.name for path in Path(str(files("kshot") / "pretrained")).iterdir())


def find_folder(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Return the folder of a model that ships with kshot, a user's folder, or that of OWNER/NAME on the hub.

    Raises ModelError if there is none.
    """
    name = str(name_or_path)
    if name in list_models():
        return Path(str(files("kshot") / "pretrained" / name))
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download  # slow to import

        try:
            return Path(
                snapshot_download(
                    name,
                    revision=revision,
                    token=token,
                    cache_dir=cache_dir,
                    allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, "base_learner/*"],
                )
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"There is no folder {name}, and no repository of that name could be fetched from the "
                f"hub ({reason_of(error)})."
            ) from error
    raise ModelError(
        f"There is no model or folder '{name}'. kshot ships {', '.join(list_models())}; "
        "or give a model's folder, or OWNER/NAME on the Hugging Face hub."
    )
