"""The four scripts are one skeleton: a diff of two of them shows the models' ideas and nothing else."""

import ast
import sys

import pytest

from helpers import ROOT

MODELS = ["tanh", "relu", "stirnn", "nprnn"]
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}
each_model = pytest.mark.parametrize("model", MODELS)


def functions(name):
    """Return the functions of a file, by name, to the letter."""
    return {node.name: ast.get_source_segment(SOURCES[name], node)
            for node in TREES[name].body if isinstance(node, ast.FunctionDef)}


def imports(tree):
    """Return the modules that are imported anywhere in a tree, in their order, by the names that they go by there."""
    found = {}
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Import):
            found.update({alias.asname or alias.name: alias.name.split(".")[0] for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            found.update({alias.asname or alias.name: node.module.split(".")[0] for alias in node.names})
    return found


@pytest.mark.parametrize("one, other, ideas", [
    ("relu", "tanh", {"activate", "slope"}),
    ("relu", "nprnn", {"init_weights", "positive_definite"}),
    ("relu", "stirnn", {"init_weights", "stabiliser", "forward_backward", "train"})])
def test_functions_are_the_same_to_the_letter_where_the_models_ideas_are(one, other, ideas):
    one, other = functions(one), functions(other)
    assert {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} == ideas


@pytest.mark.parametrize("model", ["tanh", "stirnn", "nprnn"])
def test_all_beside_docstring_name_settings_and_functions_is_the_same_to_the_letter(model):
    def rest(name):
        statements = [ast.get_source_segment(SOURCES[name], node)
                      for node in TREES[name].body[1:] if not isinstance(node, ast.FunctionDef)]
        return [statement for statement in statements if not statement.startswith(("MODEL =", "SETTINGS ="))]
    assert rest(model) == rest("relu")


@each_model
def test_a_network_is_written_out_in_numpy_and_in_its_own_script(model):
    helpers = {"evaluate_loss": {"encode", "one_hot", "streams"}, "sample": {"encode", "one_hot", "streams"}}
    foreign = imports(TREES[model]).keys() - {"np"}
    for node in TREES[model].body:
        if isinstance(node, ast.FunctionDef) and node.name != "train":
            names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            used = {inner.attr for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute) and getattr(inner.value, "id", None) == "util"}
            assert names & foreign <= ({"util"} if node.name in helpers else set()), node.name
            assert used <= helpers.get(node.name, set()), node.name


def test_settings_are_the_same_but_for_the_one_that_stirnn_needs():
    settings = {model: list(__import__(model).SETTINGS.items()) for model in MODELS}
    assert settings["tanh"] == settings["relu"] == settings["nprnn"]
    assert dict(set(settings["stirnn"]) - set(settings["relu"])).keys() == {"beta"}


def test_the_constants_are_the_originals():
    settings = __import__("relu").SETTINGS
    expected = {"epochs": 100, "hidden_size": 256, "depth": 3, "dropout": 0.1, "learning_rate": 0.01, "batch_size": 10,
                "seq_size": 100}
    assert {name: settings[name][0] for name in expected} == expected


@pytest.mark.parametrize("name", SOURCES)
def test_numpy_is_imported_before_the_projects_own_modules(name):
    names = list(imports(TREES[name]).values())
    own = [names.index(module) for module in SOURCES if module in names]
    assert "numpy" not in names or names.index("numpy") < min(own, default=len(names))


def test_what_the_scripts_share_knows_neither_them_nor_the_plots():
    assert not {"graph", *MODELS} & set(imports(TREES["util"]).values())


def test_the_project_needs_nothing_but_numpy_and_matplotlib():
    allowed = {"numpy", "matplotlib", "graphs", *SOURCES, *sys.stdlib_module_names}
    for path in [*ROOT.glob("*.py"), *ROOT.glob("graphs/*.py")]:
        assert set(imports(ast.parse(path.read_text(encoding="utf-8"))).values()) <= allowed, path.name
