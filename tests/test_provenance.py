import subprocess

from kshot.io.provenance import record_provenance


def test_provenance_names_commit_versions_and_machine(monkeypatch):
    provenance = record_provenance(["evaluate"])
    assert provenance.with_duration(1.26).seconds == 1.3
    assert {"python", "torch", "timm", "kshot"} <= provenance.versions.keys()
    assert "cores" in provenance.machine

    def no_git(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert record_provenance([]).commit is None


def test_places_on_the_users_machine_are_not_kept():
    arguments = [
        "evaluate",
        "--root",
        "secret",
        "--json=secret",
        "--backbone-weights",
        "secret",
        "--fold",
        "0",
    ]
    command = record_provenance(arguments).command
    assert command == "kshot evaluate --root PLACE --json=PLACE --backbone-weights PLACE --fold 0"
