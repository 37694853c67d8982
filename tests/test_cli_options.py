import json
import subprocess
import sys
from pathlib import Path

import typer
from PIL import Image
from test_cli import run

from kshot.cli.main import app

OPTIONS = {
    "segment": "out support support-set support-images classes negative model image-size backbone "
    "backbone-weights device engine precision tile long-side bands plane also instances strict shard ray",
    "suggest": "support support-set support-images classes count json model image-size backbone "
    "backbone-weights device",
    "serve": "port host model image-size device open",
    "export": "out format image-size backbone backbone-weights",
    "info": "backbone backbones num-base-classes json",
    "pretrain": "out root recipe set data fold start-from backbone-weights resume device",
    "train": "out root recipe set data fold base-learner start-from extra-data backbone-weights resume "
    "device",
    "choose": "data out root fold select-on episodes backbone-weights device",
    "tune-threshold": "data root fold episodes backbone-weights device",
    "evaluate": "data model backbone-weights root fold shots protocol episodes manifest set json device",
    "compare": "json",
    "episodes": "data out fold shots protocol episodes seed split holdout root",
    "table": "format out into",
    "figure discriminability": "out data manifest json root model which label backbone backbone-weights "
    "image-size device",
    "figure classes": "out",
    "figure correlations": "data manifest out root episode model backbone backbone-weights image-size "
    "taps-per-stage device",
    "figure passes": "data manifest model out root episode backbone-weights image-size device",
    "figure comparison": "data manifest out root episode model backbone backbone-weights image-size device",
    "data check": "root fold split shots",
    "data prepare": "root archives",
}
"""Every option of every verb. A setting of a network or a training belongs into its recipe, not here."""


def verbs(command=None, words=()):
    """Yield the words of each verb, and the verb."""
    command = command or typer.main.get_command(app)
    for name, verb in command.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, (*words, name))
        else:
            yield " ".join((*words, name)), verb


def options(verb):
    return [p for p in verb.params if p.param_type_name == "option" and p.name != "help"]


def test_the_options_are_these():
    found = {name: {one.opts[0].removeprefix("--") for one in options(verb)} for name, verb in verbs()}
    assert found == {name: set(listed.split()) for name, listed in OPTIONS.items()}
    for name, names in found.items():
        assert len(names) <= (22 if name == "segment" else 12), name


def test_options_of_one_name_take_the_same_values():
    kinds = {}
    for name, verb in verbs():
        for one in options(verb):
            kind = (one.multiple, one.nargs, one.metavar, one.is_flag)
            kinds.setdefault(one.opts[0], {}).setdefault(kind, []).append(name)
    for name in ("--out", "--model", "--backbone", "--manifest", "--episode"):
        kinds.pop(name)  # a file or a folder; one or several
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_every_page_of_help_ends_with_two_examples():
    known = dict(verbs())
    for name, verb in known.items():
        title, *commands = verb.epilog.split("\n\n")
        assert title == "Examples:"
        assert len(commands) == 2
        for command in commands:
            words = command.split()
            assert words[0] == "kshot"
            assert " ".join(words[1:]).startswith(name)
            given = {word for word in words if word.startswith("--")}
            assert given <= {opt for one in options(verb) for opt in one.opts}, command


MISTAKES = (
    "segment images --out out",
    "segment images --out out --support a.png b.png --support-set labels.json",
    "segment images --out out --support a.png b.png --classes a,b",
    "segment images --out out --support a.png b.png --shard 3/2",
    "segment images --out out --support a.png",
    "segment images --out out --support a.png b.png --instances split",
    "segment images --out out --support a.png b.png --also coco --instances splits",
    "segment nowhere --out out --support a.png b.png",
    "segment images --out out --support gone.png b.png",
    "segment images --out out --support a.png b.png --model gone",
    "export gone --out gone.onnx",
    "serve --model gone",
    "suggest images",
    "train --out out --set learning_rate=3",
    "train --out out --fold 9",
    "train --out out --recipe gone",
    "pretrain --out out --data gone",
    "pretrain --out out --set crop=1",
    "evaluate --data gone",
    "evaluate --data pascal --set draws=3",
    "evaluate --data pascal --set image_sise=3",
    "choose a --data pascal --out out",
    "tune-threshold a --data pascal",
    "episodes --data pascal --holdout --split val --out out",
)


def test_a_mistake_shows_before_torch_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for name in ("images/one.png", "a.png", "b.png"):
        Image.new("L", (1, 1), 255).save(name)
    code = """
import sys
from kshot.cli.main import main
for arguments in sys.argv[1:]:
    try: main(arguments.split())
    except SystemExit as end: assert end.code == 2, (arguments, end.code)
    assert "torch" not in sys.modules, arguments
"""
    done = subprocess.run([sys.executable, "-c", code, *MISTAKES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_written_or_printed(tmp_path, capsys):
    assert run("info", "hsnet", "--json", tmp_path / "info.json") == 0
    assert "trainable parameters" in capsys.readouterr().out
    assert run("info", "hsnet", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "info.json").read_text())
