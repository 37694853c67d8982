"""Training needs neither the reporting of results nor matplotlib."""

import subprocess
import sys

SCRIPT = """
import pkgutil, sys
import kshot.training
for module in pkgutil.iter_modules(kshot.training.__path__, "kshot.training."):
    __import__(module.name)
unwanted = "kshot.evaluation.", "kshot.reproduction", "matplotlib"
print(*(name for name in sys.modules if name.startswith(unwanted)))
"""


def test_training_imports_no_reporting_and_no_matplotlib():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    imported = {name.partition("kshot.evaluation.")[2] or name for name in done.stdout.split()}
    assert imported <= {"metrics", "selection"}
