"""Names of methods, datasets and exporters."""

from importlib.metadata import EntryPoint

import pytest
from make_data import ColourMethod, result_of

from kshot import plugins
from kshot.errors import DataError, ModelError
from kshot.methods.base import Method
from kshot.reproduction.tables import _fill


@pytest.fixture
def things():
    """Things of which one is built in: its module registers nothing, as it is not loaded."""
    return plugins.Plugins("thing", "kshot.no_such_group", {"built-in": "kshot.no_such_module"}, DataError)


def test_a_name_is_registered_once_and_by_one_definition(things):
    def define():
        @things.register("mine")
        class Mine:
            pass

        return Mine

    define()
    again = define()
    assert things["mine"] is again
    assert list(things) == ["built-in", "mine"]
    assert "mine" in things
    for name in ("mine", "built-in"):
        with pytest.raises(DataError, match=f"There is a thing '{name}' already"):
            things.register(name)(ColourMethod)
    with pytest.raises(DataError, match=r"no thing 'other'. Use one of built-in, mine"):
        things["other"]


def test_an_entry_point_that_cannot_be_imported_is_named(things, monkeypatch):
    point = EntryPoint("theirs", "kshot.no_such_module", "kshot.no_such_group")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    for _ in range(2):  # the second time too: it must not pass for a wrong name
        with pytest.raises(DataError, match=r"thing 'theirs' cannot be imported from kshot\.no_such_module"):
            things["other"]


@pytest.mark.parametrize("name", ["features", "match", "pyramid"])
def test_what_a_method_lacks_is_named(name):
    class Mine(Method):
        pass

    with pytest.raises(ModelError, match=f"The method Mine has no `{name}`"):
        getattr(Mine(), name)(*[None] * (2 if name == "match" else 1))


def test_methods_of_other_packages_are_listed_after_kshots_own():
    results = []
    for method in ("theirs", "two-pass", "prototype"):
        result = result_of()
        config = result.model.config.model_copy(update={"method": method})
        model = result.model.model_copy(update={"config": config})
        results.append(result.model_copy(update={"model": model}))
    rows = _fill(results, lambda result: result.model.config.method)
    assert [row.label for row in rows] == ["prototype", "two-pass", "theirs"]
