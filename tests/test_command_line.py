"""The command line as a user runs it: what each command prints and writes, and what each mistake is told."""

import contextlib
import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nprnn
import relu
import stirnn
import tanh
import util
from graphs import publish
from helpers import (ENVIRONMENT, ROOT, begin, change, do, end, kill, linux, parse, posix, read_losses, refusal,
                     start)

SMALL = ["--hidden-size", "8", "--depth", "1", "--epochs", "1", "--batch-size", "4", "--seq-size", "10", "--no-window"]
TEXT = "Wär’s nicht besser – fragt der Größte –, 🎭 zu schweigen?\nO, ’tis a naïve tongue that says not “No”.\n" * 20
MODEST = settings(max_examples=100, deadline=None)
START = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "VECLIB_MAXIMUM_THREADS": "1",
         "MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
SCRIPT = "relu", relu.__doc__, relu.SETTINGS, relu.train, relu.evaluate_loss, relu.sample  # what util.main() takes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained by the command line on a small text in five alphabets."""
    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    output, errors = do("relu", *SMALL, "--train", text, "--out", folder / "runs")
    return SimpleNamespace(text=text, folder=folder / "runs", output=output, errors=errors)


def best_weights(trained):
    """Return the weights of the network of the lowest validation loss, and its vocabulary."""
    meta, arrays = util.load_checkpoint(trained.folder / "relu.npz", "relu")
    return util.part(arrays, "best"), meta["vocabulary"]


# Training --------------------------------------------------------------------------------------------------------

def test_training_prints_what_it_trains_its_progress_and_a_sample(trained):
    lines = trained.output.splitlines()
    train, validation = len(TEXT) - len(TEXT) // 10, len(TEXT) // 10
    size = sum(array.size for array in best_weights(trained)[0].values())
    assert re.fullmatch(rf"relu: 1 x 8 units, {size:,} weights, seed 1; epochs: 1, of \d+ updates each", lines[0])
    assert lines[1] == f"text.txt: {train:,} characters, {validation:,} to validate on, {len(set(TEXT))} distinct"
    assert lines[2] == f"{trained.folder / 'relu.csv'} (losses), .png (plot), .txt (samples), .npz (checkpoint)"
    assert lines[3].startswith("A run of ") and f"{util.ENOUGH} or more are better: give more --ep" in lines[3]
    number = r"\d+\.\d{3}"
    last = max(i for i, line in enumerate(lines) if line.startswith("epoch"))
    assert re.fullmatch(rf"epoch   1\.00/1  0:00:00 left  train {number}  validation {number}  [\d,]+ char/s",
                        lines[last])
    _, rows = read_losses(trained.folder)
    sample = "\n".join(lines[last + 2:-2])
    assert len(sample) == 200 and set(sample) <= set(TEXT) and lines[last + 1] == lines[-2] == ""
    assert lines[-1] == (f"Done. The lowest validation loss, {float(rows[-1]['validation_loss']):.3f}, was that of "
                         f"epoch 1. Write with that network: {util.command('relu', trained.folder, '--sample')}")
    assert trained.errors == ""


def test_the_losses_are_a_line_of_json_the_names_of_the_columns_and_rows_of_numbers(trained):
    content = (trained.folder / "relu.csv").read_text(encoding="utf-8")
    assert content.endswith("\n") and content.startswith("# {")
    assert content.splitlines()[1] == "iteration,epoch,train_loss,validation_loss,penalty,seconds"
    about, rows = read_losses(trained.folder)
    assert {"model": "relu", "text": "text.txt", "hidden_size": 8, "seed": 1}.items() <= about.items()
    assert all(math.isfinite(float(cell)) for row in rows for cell in row.values() if cell)
    assert all(re.fullmatch(r"\d+", row["iteration"]) for row in rows)
    assert rows[0]["epoch"] == "0" and rows[-1]["epoch"] == "1"  # whole numbers have no decimal point
    assert rows[0]["validation_loss"] and rows[-1]["validation_loss"] and rows[-1]["train_loss"]


def run(monkeypatch, *words):
    """Run the script's main() in this process; return what it printed, which needs no terminal or file behind it."""
    monkeypatch.setattr(sys, "argv", ["relu.py", *map(str, words)])
    output, errors = io.StringIO(), io.StringIO()  # as a notebook's, these are no io.TextIOWrapper
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        util.main(*SCRIPT)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return output.getvalue(), errors.getvalue()


def test_quiet_training_prints_nothing_and_with_the_same_seed_gives_the_same_losses_to_the_digit(
        trained, tmp_path, monkeypatch):
    assert run(monkeypatch, *SMALL, "--train", trained.text, "--out", tmp_path, "--quiet") == ("", "")
    (_, rows), (_, others) = read_losses(tmp_path), read_losses(trained.folder)
    for row in rows + others:
        del row["seconds"]
    assert rows == others


def test_a_terminal_that_knows_only_ascii_is_no_obstacle(trained, tmp_path):
    plain = {name: value for name, value in ENVIRONMENT.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    plain |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    output, errors = do("relu", *SMALL, "--train", trained.text, "--out", tmp_path, env=plain)
    assert output.isascii() and errors == ""


@posix
def test_on_a_terminal_the_progress_line_stays_within_its_width_and_samples_begin_on_a_new_line(trained, tmp_path):
    master, slave = os.openpty()
    process = begin("relu", *SMALL, "--epochs", 12, "--train", trained.text, "--out", tmp_path, stdout=slave,
                    env={**ENVIRONMENT, "COLUMNS": "50"})
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux tells that the other end is closed
        while piece := os.read(master, 1000):
            shown += piece
    os.close(master)
    assert process.wait(60) == 0
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    progress = [part.rstrip() for line in lines for part in line.split("\r")[1:]]
    assert len(progress) > 12 and max(map(len, progress)) == 49 and all(part[:7] == "epoch  " for part in progress)
    assert not any(line and not line.startswith("\r") and "\r" in line for line in lines)
    samples = "\n".join(line for line in lines if not line.startswith("\r")).split("\n\n")
    assert sum(len(sample.strip("\n")) >= 199 for sample in samples) >= 13


def test_of_numbers_that_overflow_the_second_process_gives_no_numpy_warnings(monkeypatch, capfd):
    monkeypatch.setattr(util, "CORES", 2)
    util.second_process.cache_clear()  # the next one's errors are seen here
    rng = np.random.default_rng(1)
    weights = {name: array * np.float32(1e25) for name, array in relu.init_weights(5, 256, 1, rng).items()}
    characters = rng.integers(0, 5, (2, 4))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        loss, grads, _ = util.in_halves(relu.forward_backward, weights, util.one_hot(characters, 5), characters,
                                        np.zeros((1, 4, 256), np.float32), np.ones((1, 2, 4, 256), np.float32))
    util.second_process.cache_clear()
    assert not np.isfinite(loss) and not np.isfinite(grads["Whh0"]).all() and capfd.readouterr().err == ""


# How a script starts ---------------------------------------------------------------------------------------------

@linux
@pytest.mark.parametrize("own", [{}, {"OMP_NUM_THREADS": "3", "MALLOC_MMAP_THRESHOLD_": "9999"}], ids=["unset", "set"])
def test_blas_is_told_to_take_one_thread_and_glibc_to_keep_memory_unless_the_user_has_said_otherwise(own, trained):
    plain = {name: value for name, value in ENVIRONMENT.items() if name not in START}
    process = begin("relu", "--sample", 10**9, "--out", trained.folder, env={**plain, **own})
    assert process.stdout.read(10)
    there = dict(line.split("=", 1) for line in Path(f"/proc/{process.pid}/environ").read_text().split("\0") if line)
    kill(process)
    assert {name: there.get(name) for name in START} == {**START, **own}


def test_what_python_itself_was_told_is_not_forgotten_when_a_script_starts_anew(trained):
    plain = {name: value for name, value in ENVIRONMENT.items() if name not in START}
    words = ["-Ximporttime", ROOT / "relu.py", "--sample", 1, "--quiet", "--out", trained.folder]
    told = [len(re.findall(r"\| +numpy$", end(start(words, env=env))[1], re.M)) for env in ({**plain, **START}, plain)]
    assert told == [1, 2]


@posix
@pytest.mark.parametrize("typed, missing, times", [
    ("-u relu.py --sample", ["OMP_NUM_THREADS"], 1), ("-u relu.py --sample", [], 0),
    ("-m pdb relu.py --sample", ["OMP_NUM_THREADS"], 0), ("-m notebook --debug", ["OMP_NUM_THREADS"], 0)])
def test_a_script_starts_anew_with_pythons_options_where_it_has_to_and_no_debugger_or_notebook_has_started_it(
        typed, missing, times, monkeypatch):
    started = []
    for name, value in START.items():
        monkeypatch.setenv(name, value)
    for name in missing:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["relu.py", "--sample"])
    monkeypatch.setattr(sys, "orig_argv", ["python", *typed.split()])
    monkeypatch.setattr(os, "execve", lambda path, command, environment: started.append(command[1:]))
    util.set_up_processor()
    assert started == [typed.split()] * times


@pytest.mark.parametrize("module, script, status", [
    ("numpy", "relu", 1), ("numpy", "graph", 1), ("matplotlib", "relu", 2), ("matplotlib", "graph", 2)])
def test_where_numpy_or_matplotlib_is_missing_a_line_says_what_to_type_before_anything_is_done(
        module, script, status, tmp_path):
    (tmp_path / f"{module}.py").write_text("raise ImportError")  # comes first on the path
    _, errors = do(script, status=status, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": str(tmp_path)})
    assert ".venv/bin/activate" in errors and "README.md" in errors and errors.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {f"{module}.py", "__pycache__"}


def test_a_notebooks_matplotlib_backend_is_left_to_the_notebook(trained, tmp_path):
    _, errors = do("relu", *SMALL, "--train", trained.text, "--out", tmp_path,
                   env={**ENVIRONMENT, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    assert not errors and (tmp_path / "relu.png").exists()


def test_a_text_whose_name_the_plots_font_lacks_is_trained_on_without_a_warning(tmp_path):
    (tmp_path / "本.txt").write_text(TEXT, encoding="utf-8")
    _, errors = do("relu", *SMALL, "--train", tmp_path / "本.txt", "--out", tmp_path)
    assert not errors and (tmp_path / "relu.png").exists()


def test_a_matplotlib_backend_that_does_not_exist_is_told_in_a_line_before_anything_is_done(tmp_path):
    line = mistake("--out", tmp_path / "runs", env={**ENVIRONMENT, "MPLBACKEND": "nonsense"})
    assert "'nonsense'" in line and not any(tmp_path.iterdir())


def test_the_network_that_comes_with_the_project_is_taken_where_there_is_no_run_of_ones_own(
        trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(util, "DATA", tmp_path / "data")
    assert refusal(util.load_network, "relu").endswith(f"train one first: {util.command('relu', 'runs')}\n")
    util.write_file(tmp_path / "data" / "relu.npz", publish.network(trained.folder / "relu.npz", "relu"))
    output, errors = run(monkeypatch, "--sample", 30, "--seed", 1)
    assert len(output) == 31 and str(tmp_path / "data") in errors
    assert "comes with the project, trained on" in errors and f"your own: {util.command('relu', 'runs')}\n" in errors
    assert "loss" in run(monkeypatch, "--evaluate", trained.text)[1]
    assert "there is no saved network" in refusal(util.load_network, "relu", "elsewhere")
    assert run(monkeypatch, "--sample", 30, "--seed", 1, "--out", "data")[0] == output
    assert "--out" not in errors
    (tmp_path / "runs" / "1").mkdir(parents=True)
    shutil.copy(trained.folder / "relu.npz", tmp_path / "runs" / "1")
    (tmp_path / "runs" / "relu.csv").write_text("")
    assert "Your run in runs has not saved one yet" not in errors
    assert "Your run in runs has not saved one yet" in run(monkeypatch, "--sample", 1)[1]
    assert f"Your last one before is in {Path('runs', '1')}: --out" in run(monkeypatch, "--sample", 1)[1]
    assert "Your" not in run(monkeypatch, "--sample", 1, "--out", "data")[1]
    shutil.copytree(tmp_path / "runs" / "1", tmp_path / "runs" / "2")
    os.utime(tmp_path / "runs" / "2" / "relu.npz", (0, 0))
    errors = run(monkeypatch, "--sample", 1)[1]
    assert f"in {Path('runs', '1')}: --out" in errors and str(Path("runs", "2")) not in errors
    shutil.copy(trained.folder / "relu.npz", tmp_path / "runs")
    _, errors = run(monkeypatch, "--sample", 30)
    assert errors.startswith(str(Path("runs", "relu.npz"))) and errors.count("\n") == 1


def test_a_copy_of_a_network_that_comes_with_the_project_writes_too_and_is_not_trained_further(
        trained, tmp_path, monkeypatch):
    util.write_file(tmp_path / "relu.npz", publish.network(trained.folder / "relu.npz", "relu"))
    words = "--sample", 30, "--seed", 1, "--out"
    output, errors = run(monkeypatch, *words, tmp_path)
    assert len(output) == 31 and "comes with the project" in errors
    monkeypatch.setattr(util, "DATA", tmp_path)
    assert run(monkeypatch, *words, tmp_path)[0] == output
    monkeypatch.undo()
    line = refusal(util.Run, "relu", parse(relu, "--resume", "--out", tmp_path))
    assert f"{tmp_path / 'relu.npz'} is a network that comes with the project; " in line


@posix
def test_without_a_standard_error_nothing_but_the_sample_is_on_standard_output(trained):
    script = 'exec "$0" relu.py --out "$1" --sample 30 --seed 1 2>&-'
    process = start(["-c", "import os, sys; os.execvp('sh', ['sh', '-c', *sys.argv[1:]])", script, sys.executable,
                     trained.folder], cwd=ROOT)
    assert len(process.communicate(timeout=60)[0]) == 31 and process.returncode == 0


# Sampling --------------------------------------------------------------------------------------------------------

def sample(trained, *words):
    output, errors = do("relu", "--out", trained.folder, *words)
    assert re.fullmatch(r"\S+relu.npz: the network of epoch \S+, validation loss \S+\n", errors)
    return output


def test_a_sample_is_the_prime_the_characters_asked_for_and_a_newline_and_the_same_for_the_same_seed(trained, tmp_path):
    (tmp_path / "prime.txt").write_text("’tis 🎭\n", encoding="utf-8")
    words = "--sample", "137", "--seed", "5"
    text = sample(trained, *words, "--prime", "’tis 🎭\n")
    assert text.startswith("’tis 🎭\n") and text.endswith("\n") and len(text) == len("’tis 🎭\n") + 137 + 1
    assert set(text) <= set(TEXT)
    assert sample(trained, *words, "--prime-file", tmp_path / "prime.txt") == text


def test_samples_without_a_seed_are_not_the_same(trained, monkeypatch):
    words = "--out", trained.folder, "--sample", 200
    assert run(monkeypatch, *words)[0] != run(monkeypatch, *words)[0]


def test_a_sample_of_no_characters_is_the_prime_and_a_newline(trained):
    assert sample(trained, "--sample", "0", "--prime", "O, ") == "O, \n"


def test_sample_alone_draws_500_characters_and_quietly_nothing_is_said_beside_them(trained):
    output, errors = do("relu", "--out", trained.folder, "--sample", "--quiet")
    assert len(output) == 501 and errors == ""


@pytest.mark.parametrize("temperature", ["0", "1e-300"])
def test_a_temperature_of_0_takes_the_likeliest_character_whatever_the_seed(temperature, trained):
    cold = sample(trained, "--temperature", temperature, "--sample", "50", "--seed", "1")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        likeliest = relu.sample(*best_weights(trained), 50, 1e-5, np.random.default_rng(2))
        assert cold == "".join(likeliest) + "\n"


def test_a_network_whose_states_grow_beyond_all_numbers_writes_as_many_characters_as_any_other(trained):
    weights, vocabulary = best_weights(trained)
    weights |= {"Wxh0": abs(weights["Wxh0"]), "Whh0": 9 * np.eye(8, dtype=np.float32)}
    with np.errstate(all="ignore"):
        text = "".join(relu.sample(weights, vocabulary, 200, 0.7, np.random.default_rng(1)))
    assert len(text) == 200 and set(text) <= set(vocabulary)


def test_characters_are_printed_as_they_are_drawn_and_sampling_ends_when_nobody_reads_any_more(trained):
    process = begin("relu", "--out", trained.folder, "--sample", 10**9, "--quiet")
    patience = threading.Timer(60, process.kill)
    patience.start()
    assert process.stdout.read(10)
    patience.cancel()
    process.stdout.close()
    assert process.wait(60) == 128 + 13 and process.stderr.read() == ""  # what the shell says of SIGPIPE


# Evaluating ------------------------------------------------------------------------------------------------------

def test_the_evaluation_of_a_text_is_the_loss_of_the_best_network_on_the_characters_it_knows(trained, tmp_path):
    known = TEXT[100:400]
    (tmp_path / "text.txt").write_text("€" + known + "x€x" + "€", encoding="utf-8")
    output, _ = do("relu", "--evaluate", tmp_path / "text.txt", "--out", trained.folder)
    line, unknown = output.splitlines()
    weights, vocabulary = best_weights(trained)
    loss = relu.evaluate_loss(weights, util.encode(known, vocabulary))
    assert line == (f"{loss:.4f} nats per character, {loss / math.log(2):.4f} bits, perplexity {math.exp(loss):.4g}; "
                    "299 characters predicted")
    assert unknown == "5 characters that the network does not know were left out: '€' 3, 'x' 2"


@pytest.mark.parametrize("unknown, named, others", [
    ("αβγδεζηθικ", "αβγδεζηθικ", ""), ("αβγδεζηθικμλλ", "λαβγδεζηθι", " and 2 others")])
def test_of_unknown_characters_the_ten_most_frequent_are_named(unknown, named, others, trained, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(2 * unknown + TEXT, encoding="utf-8")
    output, _ = run(monkeypatch, "--evaluate", tmp_path / "text.txt", "--out", trained.folder)
    assert output.endswith(" left out: " + ", ".join(f"'{c}' {2 * unknown.count(c)}" for c in named) + others + "\n")


def test_a_loss_whose_perplexity_is_beyond_all_numbers_is_told_too(trained, capsys):
    options = parse(relu, "--evaluate", trained.text, "--out", trained.folder)
    util.print_evaluation("relu", options, lambda weights, text: 1000.0)
    assert capsys.readouterr().out == ("1000.0000 nats per character, 1442.6950 bits, perplexity 1.014e+304; "
                                       f"{len(TEXT) - 1:,} characters predicted\n")


@linux
@pytest.mark.parametrize("words", [["--sample", 10**9], ["--evaluate", ROOT / "data" / "play.txt"]], ids=str)
def test_what_a_full_disk_does_not_take_is_told_once_and_ends_the_program(words, trained):
    with open("/dev/full", "w") as full:
        _, errors = do("relu", *words, "--out", trained.folder, "--quiet", stdout=full, status=1)
    assert errors == "cannot print: No space left on device\n"


# Mistakes --------------------------------------------------------------------------------------------------------

def mistake(*words, **keywords):
    """Run the script with a mistake; assert one line of errors, status 2 and no other output, and return the line."""
    output, errors = do("relu", *words, status=2, **keywords)
    assert output == "" and errors.startswith("relu.py: ") and errors.count("\n") == 1
    return errors


def test_an_output_folder_that_is_a_file_is_found_before_training(trained, tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    line = mistake(*SMALL, "--train", trained.text, cwd=tmp_path)
    assert "cannot write to runs" in line and "--out" in line
    assert (tmp_path / "runs").read_text() == "not a folder"


@pytest.mark.parametrize("words", [[], ["--resume"]], ids=["new", "resumed"])
def test_the_folder_of_the_projects_networks_is_none_to_train_into(words, trained, tmp_path, monkeypatch):
    data, link = tmp_path / "data", tmp_path / "link"
    data.mkdir()
    monkeypatch.setattr(util, "DATA", data)
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(OSError):  # Windows may not let us
        link.symlink_to(data, target_is_directory=True)
    for out in data, "data", "./data/", "data/../data", link if link.exists() else data:
        line = refusal(relu.train, parse(relu, *words, "--train", trained.text, "--out", out))
        assert "data/ holds the networks that come with the project" in line and not any(data.iterdir())


def test_an_earlier_run_that_cannot_be_moved_is_told_in_a_line(trained, tmp_path, monkeypatch):
    def rename(path, target):
        raise PermissionError(13, "Permission denied", str(path))
    shutil.copytree(trained.folder, tmp_path / "runs")
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["relu.py", *SMALL, "--train", str(trained.text)])
    line = refusal(util.main, *SCRIPT, status=1)
    assert line == f"relu.py: {Path('runs', 'relu.png')}: Permission denied\n"


def test_a_prime_with_unknown_characters_names_them(trained, tmp_path, capsys):
    def line(*words):
        options = parse(relu, "--out", trained.folder, "--quiet", "--sample", 9, *words)
        return refusal(util.print_sample, "relu", options, relu.sample)
    (tmp_path / "prime.txt").write_text(r"to\n")
    assert ": the prime has 'l', 'p', 'x', '€', which the text" in line("--prime", "xylophon€")
    assert re.search("the prime has 'α', 'β', .*'κ' and others, which the text", line("--prime", "αβγδεζηθικλμ"))
    assert line("--prime", r"to\n").endswith("; a newline is typed as Enter, between the quotes\n")
    for words in ["--prime", "xylophon€"], ["--prime-file", tmp_path / "prime.txt"]:
        assert line(*words).endswith(" does not contain\n")
    assert capsys.readouterr().out == ""


def test_of_a_network_that_has_learned_nothing_yet_a_line_says_so(trained, tmp_path, monkeypatch):
    shutil.copy(trained.folder / "relu.npz", tmp_path)
    assert "learned nothing" not in run(monkeypatch, "--sample", 5, "--out", tmp_path)[1]
    change(tmp_path / "relu.npz", best_epoch=0)
    assert run(monkeypatch, "--sample", 5, "--out", tmp_path)[1].endswith("\nIt has learned nothing yet\n")


def test_a_command_to_type_names_the_script_where_it_is(tmp_path, monkeypatch):
    for folder, script in (ROOT, "relu.py"), (tmp_path, ROOT / "relu.py"):
        monkeypatch.chdir(folder)
        assert util.command("relu", "runs", "--sample") == util.JOIN(["python", str(script), "--sample"])


def test_a_command_to_type_is_quoted_as_the_command_prompt_wants_it_on_windows(monkeypatch):
    monkeypatch.setattr(util, "JOIN", subprocess.list2cmdline)
    assert util.command("relu", PureWindowsPath("runs/1"), "--sample") == r"python relu.py --sample --out runs\1"
    assert util.option("train", PureWindowsPath("C:/my text.txt")) == r'--train "C:\my text.txt"'


@posix
def test_a_text_that_is_missing_is_told_as_a_user_sees_it(tmp_path):
    assert mistake(*SMALL, "--train", "text.txt", cwd=tmp_path) == (
        "relu.py: cannot read text.txt: No such file or directory; give a text with --train\n")
    assert "cannot read my text.txt: No such" in refusal(util.read_text, "my\ntext.txt")
    assert not any(tmp_path.iterdir())


@posix
def test_sizes_for_which_there_is_not_enough_memory_are_told_in_one_line(trained, tmp_path):
    import resource
    line = mistake("--train", trained.text, "--out", tmp_path, "--hidden-size", 40_000, "--quiet",
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9, 2 * 10**9)))
    assert "not enough memory; try a smaller --hidden-size, " in line


@pytest.mark.parametrize("mode, words, why", [
    ("--sample=9", ["--batch-size", "4", "--train", "a", "--save-every", "7"],
     "--batch-size, --save-every, --train cannot be given with --sample"),
    ("--evaluate=a", ["--val", "b", "--save-every", "7"], "--save-every, --val cannot be given with --evaluate"),
    ("--evaluate=a", ["--epochs", "4", "--temperature", "1"], "--epochs, --temperature cannot be given with"),
    ("--sample", ["--evaluate", "a", "--resume"], "--evaluate, --resume cannot be given with --sample"),
    ("--quiet", ["--prime", "a b"], "--prime goes with --sample: --sample --prime 'a b'"),
    ("--sample", ["--prime", "a", "--prime-file", "b"], "--prime cannot be given with --prime-file"),
    ("--quiet", ["--prime-file", "a"], "--prime-file goes with --sample"),
    ("--resume", ["--temperature", "0.5"], "--temperature goes with --sample: --sample --temperature 0.5"),
])
def test_options_that_do_not_go_together_are_refused(mode, words, why):
    assert why in refusal(parse, relu, mode, *words)


@pytest.mark.parametrize("content, why", [
    (b"", "is empty"),
    (b"\xef\xbb\xbf", "is empty"),
    ("Größe".encode("latin-1") * 50, r"is not UTF-8 text \(byte 2 is wrong\); save it as UTF-8 in an editor"),
    ("Größe".encode("utf-16"), "is not UTF-8 text"),
    pytest.param(None, "Is a directory; give a text with --train", marks=posix),
    ("ö".encode() * 44, "has 44 characters; batches of 4 x 10 steps need at least 45"),
], ids=["empty", "only a mark", "Latin-1", "UTF-16", "folder", "short"])
def test_a_text_that_cannot_be_trained_on_is_refused_with_the_reason(tmp_path, content, why):
    path = tmp_path / "text.txt"
    path.mkdir() if content is None else path.write_bytes(content)
    options = parse(relu, "--train", path, "--batch-size", "4", "--seq-size", "10")
    assert re.search(rf"text\.txt.*{why}", refusal(util.load_text, options))


def test_a_validation_text_of_one_character_is_refused(trained, tmp_path):
    (tmp_path / "val.txt").write_text("x")
    options = parse(relu, "--train", trained.text, "--val", tmp_path / "val.txt")
    assert "val.txt has 1 character; a validation text needs at least 2" in refusal(util.load_text, options)


def test_a_validation_text_that_is_part_of_the_training_text_is_told_of(trained, tmp_path, capsys):
    content = trained.text.read_text(encoding="utf-8")
    for part, told in (content[10:60], True), (content, True), (content[::-1], False):
        (tmp_path / "val.txt").write_text(part, encoding="utf-8")
        util.load_text(parse(relu, "--train", trained.text, "--val", tmp_path / "val.txt"))
        assert ("val.txt is part of " in capsys.readouterr().err) == told


@pytest.mark.parametrize("words", [["--train"], ["--train", ROOT / "relu.py", "--val"], ["--evaluate"],
                                   ["--sample", "9", "--prime-file"]], ids=lambda words: words[-1])
def test_an_empty_path_is_a_mistake_and_not_the_option_left_out(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["relu.py", *map(str, words), ""])
    line = refusal(util.main, *SCRIPT[:3], util.load_text, *SCRIPT[4:])
    assert "cannot read '': " in line and line.endswith(f"give a text with {words[-1]}\n")


@pytest.mark.parametrize("content, why", [("", "is empty"), ("€" * 50 + "O", "has 1 of the characters that the")])
def test_a_text_that_cannot_be_evaluated_is_refused_with_the_reason(content, why, trained, tmp_path):
    (tmp_path / "text.txt").write_text(content, encoding="utf-8")
    options = parse(relu, "--evaluate", tmp_path / "text.txt", "--out", trained.folder, "--quiet")
    assert f"text.txt {why}" in refusal(util.print_evaluation, "relu", options, relu.evaluate_loss)


@pytest.mark.parametrize("own_validation", [True, False])
@MODEST
@given(batch_size=st.integers(1, 12), seq_size=st.integers(1, 30))
def test_a_text_of_exactly_the_least_length_will_do_and_a_shorter_one_will_not(own_validation, batch_size, seq_size):
    with tempfile.TemporaryDirectory() as folder:
        train, val = Path(folder, "train.txt"), Path(folder, "val.txt")
        val.write_text("ab")
        words = ["--train", train, "--batch-size", batch_size, "--seq-size", seq_size]
        words += ["--val", val] if own_validation else []
        least = batch_size * seq_size + 1  # one batch, and the target of its last step
        if not own_validation:  # a tenth is held out, and is to have two characters
            least = next(n for n in range(20, 2 * least + 20) if n - n // 10 >= least)
        train.write_text("a" * (least - 1))
        line = refusal(util.load_text, parse(relu, *words))
        assert f"{least - 1:,} characters" in line
        assert line.endswith(f" need at least {least:,}: give a longer text, or smaller --batch-size and --seq-size\n")
        train.write_text("a" * least)
        text = util.load_text(parse(relu, *words))
        assert len(text.train) > batch_size * seq_size and len(text.validation) >= 2
        assert len(text.train) + len(text.validation) == least + 2 * own_validation


@pytest.mark.parametrize("folder", ["nowhere", "text.txt"])
def test_without_saved_weights_the_user_is_told_to_train_first(tmp_path, folder):
    (tmp_path / "text.txt").write_text("a file, not a folder")
    line = refusal(util.load_checkpoint, tmp_path / folder / "relu.npz", "relu")
    assert "there is no saved network" in line and "train one first: python relu.py" in line


@posix
def test_a_folder_whose_name_is_too_long_holds_no_checkpoint(tmp_path):
    assert "name too long" in refusal(util.load_checkpoint, tmp_path / ("long" * 100) / "relu.npz", "relu")


@pytest.mark.parametrize("option, words", {
    "--epochs": "0 -1 1.5 1000001 many",
    "--hidden-size": "0 -8 1e3 100001",
    "--depth": "0 -1 1001 2.0",
    "--dropout": "1 1.5 -0.1 nan inf 0.99999 half",
    "--learning-rate": "-0.01 nan inf -inf 1e999",
    "--batch-size": "0 -1 0.5",
    "--seq-size": "0 -1 0.5",
    "--seed": "-1 0.5 1000000000000000001",
    "--decay": "-0.1 1.1 nan",
    "--epsilon": "0 2",
    "--clip-norm": "-1 inf",
    "--warm-up": "0 1.5",
    "--save-every": "0 -1",
    "--sample": "-1 0.5 1000000001 all",
    "--temperature": "-1 nan inf",
}.items())
def test_numbers_out_of_range_are_refused_with_the_option_the_word_and_what_is_wanted(option, words):
    for word in words.split():
        line = refusal(parse, relu, f"{option}={word}")
        assert f"argument {option}: {word!r} is not a " in line and re.search(r"number (from|of at least) \d", line)
        assert option in refusal(parse, relu, option, word)


def test_numbers_at_the_ends_of_their_ranges_are_taken():
    options = parse(relu, *"--dropout 0 --epochs 1000000 --depth 1 --seed 0 --learning-rate 0".split(" "))
    assert (options.dropout, options.epochs, options.depth, options.seed) == (0, 10**6, 1, 0)
    assert options.learning_rate == 0 and parse(relu, "--dropout", "0.99").dropout == 0.99
    options = parse(relu, "--sample", "0", "--temperature", "0")
    assert (options.sample, options.temperature) == (0, 0)


def test_without_words_the_options_are_the_scripts_settings_and_nothing_counts_as_given():
    options = parse(stirnn)
    defaults = {name: value for name, (value, *_) in stirnn.SETTINGS.items()}
    assert defaults.items() <= vars(options).items() and options.defaults == defaults and options.given == {}
    assert options.train is options.val is options.sample is options.evaluate is None
    assert not options.resume and not options.quiet and not options.no_window


def test_a_share_that_was_edited_to_a_whole_number_in_the_script_can_still_be_given_as_a_fraction(monkeypatch):
    for name, (value, *rest) in stirnn.SETTINGS.items():
        if isinstance(value, float):
            monkeypatch.setitem(stirnn.SETTINGS, name, (1, *rest))
            assert vars(parse(stirnn, util.option(name), 0.5))[name] == 0.5
        else:
            assert "is not a whole number" in refusal(parse, stirnn, util.option(name), 1.5)


def test_every_setting_can_be_given():
    for name, (value, _, most, _) in stirnn.SETTINGS.items():
        other = type(value)(min(most, 2 * value) if name != "decay" else 0.5)
        options = parse(stirnn, util.option(name), other)
        assert vars(options)[name] == other != value and options.given == {name: other}


@pytest.mark.parametrize("word, meant", [
    ("--hidden", "--hidden-size"), ("--epoch=3", "--epochs"), ("--warmup", "--warm-up"),
    ("--watch", None), ("--no-plot", None), ("text.txt", None),
])
def test_a_word_that_is_no_option_is_told_with_the_option_that_may_have_been_meant(word, meant):
    hint = f"did you mean {meant}?" if meant else "--help lists all; a value of several words takes quotes"
    assert refusal(parse, relu, word, "more").endswith(f": there is no option {word!r}; {hint}\n")


def test_a_text_without_an_option_is_told_with_the_option_that_it_needs(tmp_path):
    (tmp_path / "my text.txt").write_text("x")
    assert f"did you mean --train '{tmp_path / 'my text.txt'}'?\n" in refusal(parse, relu, tmp_path / "my text.txt")


@pytest.mark.parametrize("script", [tanh, relu, stirnn, nprnn])
def test_help_fits_a_terminal_and_names_every_option_with_what_it_is_and_its_default(script, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setitem(script.SETTINGS, "dropout", (0.0, *script.SETTINGS["dropout"][1:]))
    with pytest.raises(SystemExit) as stop:
        parse(script, "--help")
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    text = " ".join(output.split())
    assert stop.value.code == 0 and f"python {script.MODEL}.py --sample" in text
    for name, (value, _, _, what) in {**script.SETTINGS, **util.OPTIONS}.items():
        default = "" if value is None or value is False else f" (default {value})"
        assert re.search(rf"{util.option(name)}( \S+)? {re.escape(what + default)} (--|$)", text + " --"), name


options = [util.option(name) for name in vars(parse(relu)) if name not in ("given", "defaults")]
names = st.sampled_from([*options, "--", "-", "-x"])
values = st.one_of(st.integers().map(str), st.floats().map(str), st.text(max_size=6), st.just("--"))
option_words = st.one_of(names, values, st.tuples(names, values).map("=".join))


@settings(MODEST, max_examples=300)
@given(st.lists(option_words.filter(lambda word: not word.startswith(("-h", "--help"))), max_size=5))
@example(["two\nlines", "\r", "\u2028"])
@example(["--train=--"])
@example(["--seed=--"])
@example(["--seed=" + "9" * 5000])
def test_any_words_are_either_understood_or_refused_in_one_line(words):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = parse(relu, *words)
    except SystemExit as stop:
        assert stop.code == 2 and len(errors.getvalue().splitlines()) == 1
    else:
        assert errors.getvalue() == "" and not any(isinstance(value, list) for value in vars(options).values())
        assert options.batch_size > 0 and 0 <= options.dropout < 1 and options.temperature >= 0 and options.seed >= 0
