"""The notebooks run from top to bottom, and are committed without what they print."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
# What each must print, and how many figures it shows.
EXPECTED = {"your_own_images": ("24 coins", 3), "inside_the_two_passes": ("13, 13", 3)}


def test_each_notebook_is_expected():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(EXPECTED)


@pytest.mark.notebook
@pytest.mark.parametrize("name", EXPECTED)
def test_notebooks_run_and_show_something(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # not the home folder
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "Clear its outputs first."
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    text, num_figures = EXPECTED[name]
    assert text in "".join(output.get("text", "") for output in outputs)
    figures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == num_figures
    for figure in figures:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(figure))).convert("L"))
        assert pixels.std() > 20
