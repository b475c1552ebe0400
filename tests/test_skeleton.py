"""The four scripts are one skeleton: a diff of two of them shows the models' ideas and nothing else."""

import ast
import difflib
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODELS = ["tanh", "relu", "stirnn", "nprnn"]
SOURCES = {model: (ROOT / f"{model}.py").read_text(encoding="utf-8") for model in MODELS}
SAME = ["dropout_masks", "forward", "log_softmax", "rmsprop", "evaluate_loss", "sample"]


def functions(model):
    return {node.name: ast.get_source_segment(SOURCES[model], node)
            for node in ast.parse(SOURCES[model]).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", SAME)
def test_functions_that_should_be_the_same_are_the_same_to_the_letter(name):
    assert len({functions(model)[name] for model in MODELS}) == 1


@pytest.mark.parametrize("name", ["forward_backward", "train", "init_weights"])
def test_only_stirnn_differs_in_training_and_only_the_recurrent_matrices_in_initialisation(name):
    plain = ["tanh", "relu"] if name == "init_weights" else ["tanh", "relu", "nprnn"]
    assert len({functions(model)[name] for model in plain}) == 1


@pytest.mark.parametrize("one, other", list(itertools.combinations(MODELS, 2)))
def test_the_diff_of_two_scripts_is_small(one, other):
    diff = difflib.unified_diff(SOURCES[one].splitlines(), SOURCES[other].splitlines(), n=0, lineterm="")
    changed = [line for line in diff if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) <= (70 if "stirnn" in (one, other) else 25)


@pytest.mark.parametrize("model", MODELS)
def test_a_script_can_be_read_in_one_sitting(model):
    assert SOURCES[model].count("\n") <= 260 and max(map(len, SOURCES[model].splitlines())) <= 120


@pytest.mark.parametrize("model", MODELS)
def test_the_constants_are_the_originals(model):
    constants = {node.targets[0].id: node.value.value for node in ast.parse(SOURCES[model]).body
                 if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)}
    expected = {"EPOCHS": 100, "HIDDEN_SIZE": 256, "DEPTH": 3, "DROPOUT": 0.1, "LEARNING_RATE": 0.01, "BATCH_SIZE": 10,
                "SEQ_SIZE": 100, "MODEL": model}
    assert {name: constants[name] for name in expected} == expected


def test_the_project_needs_nothing_but_numpy_and_matplotlib():
    allowed = {"numpy", "matplotlib", "util", "graph", *MODELS} | set(__import__("sys").stdlib_module_names)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("graphs/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path.name
