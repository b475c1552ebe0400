"""The command line as a user runs it: what training and sampling print and write, and what each mistake is told."""

import contextlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import relu
import util

ROOT = Path(util.__file__).resolve().parent
DEFAULTS = {name.lower(): getattr(relu, name) for name in ("EPOCHS", "HIDDEN_SIZE", "DEPTH", "DROPOUT", "LEARNING_RATE",
                                                           "BATCH_SIZE", "SEQ_SIZE", "SEED")}
TINY = "--hidden-size 8 --depth 1 --epochs 1 --batch-size 4 --seq-size 10 --no-plot".split()
TEXT = "Wär’s nicht besser – fragt der Größte –, 🎭 zu schweigen?\nO, ’tis a naïve tongue that says not “No”.\n" * 20
MODEST = settings(max_examples=100, deadline=None)
ENVIRONMENT = {**os.environ, "PYTHONIOENCODING": "utf-8",
               "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # even a mistake of ours reaches no network


def run(*words, script="relu.py", environment=ENVIRONMENT, cwd=None):
    """Run a script to its end and return its exit status, its output in bytes, and the lines of its errors."""
    result = subprocess.run([sys.executable, ROOT / script, *words], capture_output=True, env=environment, cwd=cwd,
                            timeout=120)
    return SimpleNamespace(status=result.returncode, out=result.stdout, errors=result.stderr.decode().splitlines())


def parse(*words):
    return util.parse_options("relu", DEFAULTS, words)


def refusal(action, *arguments):
    """Return the line of errors with which an action ends the program; assert that it is one, and the status 2."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        action(*arguments)
    assert end.value.code == 2 and len(errors.getvalue().splitlines()) == 1 and errors.getvalue().endswith("\n")
    return errors.getvalue()


def rows(path):
    """Return the cells of a file of losses, without the seconds."""
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    column = lines[0].index("seconds")
    return [line[:column] + line[column + 1:] for line in lines]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained by the command line on a small text in five alphabets."""
    folder = tmp_path_factory.mktemp("trained")
    text, out = folder / "text.txt", folder / "runs"
    text.write_text(TEXT, encoding="utf-8")
    result = run(*TINY, "--train", str(text), "--out", str(out))
    return SimpleNamespace(text=str(text), out=str(out), folder=out, result=result)


# Training --------------------------------------------------------------------------------------------------------

def test_training_leaves_losses_a_plot_and_a_checkpoint(trained):
    assert trained.result.status == 0
    assert sorted(path.name for path in trained.folder.iterdir()) == ["relu.csv", "relu.lock", "relu.npz", "relu.png"]
    assert (trained.folder / "relu.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_training_prints_what_it_trains_its_progress_and_a_sample(trained):
    lines = trained.result.out.decode().splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["Model", "Settings", "Text", "Results"]
    train, validation = len(TEXT) - len(TEXT) // 10, len(TEXT) // 10
    assert f"{train:,} characters to train on, {validation:,} to validate on, {len(set(TEXT))} distinct" in lines[2]
    number = r"\d+\.\d{3}"
    updates = (train - 1) // 4 // 10
    last = max(i for i, line in enumerate(lines) if line.startswith("epoch"))
    assert re.fullmatch(rf"epoch +1\.00/1  iteration {updates}/{updates}  train {number}  validation {number}  "
                        r"[\d,]+ char/s  0:00:00 left", lines[last])
    sample = [line for line in lines[last + 1:] if line.startswith("    ")]
    assert 150 < sum(len(line) - 3 for line in sample) <= 201 and set("".join(sample)) <= set(TEXT)
    assert lines[-1].startswith("Done.") and "python relu.py --sample 500 --out " in lines[-1]
    assert trained.result.errors == []


def test_the_checkpoint_is_plain_arrays_and_json_that_can_be_read_without_pickle(trained):
    with np.load(trained.folder / "relu.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays["meta"]))
    assert meta["model"] == "relu" and meta["vocabulary"] == "".join(sorted(set(TEXT)))
    assert meta["settings"]["hidden_size"] == 8 and meta["iteration"] == (len(TEXT) - len(TEXT) // 10 - 1) // 40
    assert arrays["Wxh0"].shape == (len(set(TEXT)), 8) and arrays["Wxh0"].dtype == np.float32


def test_the_losses_are_a_line_of_json_the_names_of_the_columns_and_rows_of_numbers(trained):
    content = (trained.folder / "relu.csv").read_text(encoding="utf-8")
    about, names, *lines = content.splitlines()
    assert content.endswith("\n") and about.startswith("# {")
    assert {"model": "relu", "text": "text.txt", "hidden_size": 8, "seed": 1}.items() <= json.loads(about[2:]).items()
    assert names == "iteration,epoch,train_loss,validation_loss,seconds,batch_loss,penalty"
    cells = [dict(zip(names.split(","), line.split(","), strict=True)) for line in lines]
    assert all(math.isfinite(float(cell)) for row in cells for cell in row.values() if cell)
    assert all(re.fullmatch(r"\d+", row["iteration"]) for row in cells)
    assert cells[0]["epoch"] == "0" and cells[-1]["epoch"] == "1"  # whole numbers have no decimal point
    assert cells[0]["validation_loss"] and cells[-1]["validation_loss"] and cells[-1]["train_loss"]


def test_quiet_training_prints_nothing_and_with_the_same_seed_gives_the_same_losses_to_the_digit(trained, tmp_path):
    result = run(*TINY, "--train", trained.text, "--out", str(tmp_path / "runs"), "--quiet", cwd=tmp_path)
    assert (result.status, result.out, result.errors) == (0, b"", [])
    assert rows(tmp_path / "runs" / "relu.csv") == rows(trained.folder / "relu.csv")


@pytest.mark.parametrize("quiet", [["--quiet"], []], ids=["quiet", "aloud"])
def test_a_terminal_that_knows_only_ascii_is_no_obstacle(trained, tmp_path, quiet):
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    plain |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = run(*TINY, "--train", trained.text, "--out", str(tmp_path), *quiet, environment=plain)
    assert (result.status, result.errors) == (0, []) and result.out.isascii()


@pytest.mark.parametrize("rate", ["1e30", "1e300"])
def test_a_loss_that_is_not_finite_ends_training_with_one_clear_line_and_status_1(trained, tmp_path, rate):
    result = run(*TINY, "--train", trained.text, "--out", str(tmp_path), "--learning-rate", rate)
    assert result.status == 1 and len(result.errors) == 1
    assert re.fullmatch(r"relu\.py: the loss is not finite any more at iteration 2; .*--learning-rate.*",
                        result.errors[0])
    assert not (tmp_path / "relu.npz").exists() and (tmp_path / "relu.csv").exists()


def test_numbers_that_overflow_give_no_numpy_warnings_from_the_second_thread_either(monkeypatch):
    monkeypatch.setattr(util, "threads", 2)
    large = np.full((512, 256), 1e30, np.float32)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        assert np.isinf(util.product(large, large[:256])).all()


def test_on_a_terminal_lines_are_broken_between_words_and_keep_their_indent(monkeypatch, capsys):
    monkeypatch.setattr(util, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    util.say_indented("To be, or not to be, that is", "    ", "    ")
    util.say_indented("", "    ", "    ")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "    To be, or not to", "    be, that is", ""]


# Sampling --------------------------------------------------------------------------------------------------------

def sample(trained, *words):
    result = run("--out", trained.out, *words)
    assert (result.status, result.errors) == (0, [])
    return result.out.decode()


def test_a_sample_is_the_prime_the_characters_asked_for_and_a_newline_and_the_same_for_the_same_seed(trained):
    words = "--sample", "137", "--prime", "’tis 🎭\n", "--seed", "5"
    text = sample(trained, *words)
    assert text.startswith("’tis 🎭\n") and text.endswith("\n") and len(text) == len("’tis 🎭\n") + 137 + 1
    assert set(text) <= set(TEXT)
    assert sample(trained, *words) == text


def test_a_sample_of_no_characters_is_the_prime_and_a_newline(trained):
    assert sample(trained, "--sample", "0", "--prime", "O, ") == "O, \n"


def test_a_prime_alone_asks_for_500_characters(trained):
    assert len(sample(trained, "--prime", "O, ")) == len("O, ") + 500 + 1


def test_a_temperature_near_0_takes_the_likeliest_character_whatever_the_seed_and_does_not_overflow(trained):
    cold = sample(trained, "--temperature", "1e-300", "--sample", "50", "--seed", "1")
    weights = util.load_checkpoint(trained.folder / "relu.npz", "relu").weights
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        likeliest = relu.sample(weights, "".join(sorted(set(TEXT))), 50, 1e-5, np.random.default_rng(2))
        assert cold == "".join(likeliest) + "\n"


def test_sampling_ends_when_nobody_reads_any_more(trained):
    program = subprocess.Popen([sys.executable, ROOT / "relu.py", "--out", trained.out, "--sample", "1000000000"],
                               env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert program.stdout.read(10)
        program.stdout.close()
        assert program.wait(30) == 128 + 13 and program.stderr.read() == b""  # what the shell says of SIGPIPE
    finally:
        program.kill()
        program.wait()
        program.stderr.close()


# Mistakes --------------------------------------------------------------------------------------------------------

def mistake(folder, *words):
    """Run the script with a mistake; assert one line of errors, status 2 and no other output, and return the line."""
    result = run(*TINY, *words, cwd=folder)
    assert (result.status, result.out) == (2, b"") and len(result.errors) == 1, result
    assert result.errors[0].startswith("relu.py: ")
    return result.errors[0]


def test_an_unknown_option_is_named(tmp_path):
    assert "--hidden" in mistake(tmp_path, "--train", "text.txt", "--hidden", "8") and not any(tmp_path.iterdir())


def test_an_output_folder_that_is_a_file_is_found_before_training(trained, tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    line = mistake(tmp_path, "--train", trained.text)
    assert "cannot write to runs" in line and "--out" in line
    assert (tmp_path / "runs").read_text() == "not a folder"


def test_a_prime_with_unknown_characters_names_them(trained, tmp_path):
    result = run("--out", trained.out, "--prime", "xylophon€", cwd=tmp_path)
    assert (result.status, result.out) == (2, b"") and len(result.errors) == 1
    assert result.errors[0].startswith("relu.py: --prime has 'l', 'p', 'x', '€', which")


@pytest.mark.parametrize("words", [["--sample", "9"], ["--prime", "the"], ["--temperature", "0.5"]], ids=" ".join)
def test_an_option_of_training_beside_one_of_sampling_is_refused(trained, words):
    result = run("--out", trained.out, "--train", trained.text, "--batch-size", "4", *words)
    assert (result.status, result.out) == (2, b"") and len(result.errors) == 1
    assert result.errors[0].startswith("relu.py: --batch-size, --train can only be given for training")


def test_another_models_checkpoint_is_refused(trained, tmp_path):
    shutil.copy(trained.folder / "relu.npz", tmp_path / "tanh.npz")
    result = run("--sample", "9", "--out", str(tmp_path), script="tanh.py")
    assert (result.status, result.out) == (2, b"") and len(result.errors) == 1
    assert result.errors[0].startswith("tanh.py: ") and "it is of relu.py" in result.errors[0]


def test_a_text_that_is_missing_is_told_as_a_user_sees_it(tmp_path):
    assert mistake(tmp_path, "--train", "text.txt") == "relu.py: cannot read text.txt: No such file or directory"


@pytest.mark.parametrize("content, why", [
    (b"", "is empty"),
    (b"\xef\xbb\xbf", "is empty"),
    ("Größe".encode("latin-1") * 50, r"is not UTF-8 text \(byte 2 is wrong\); convert it first"),
    ("Größe".encode("utf-16"), "is not UTF-8 text"),
    (None, "Is a directory"),
    ("ö".encode() * 44, "has 44 characters; batches of 4 x 10 steps need at least 45"),
], ids=["empty", "only a mark", "Latin-1", "UTF-16", "folder", "short"])
def test_a_text_that_cannot_be_trained_on_is_refused_with_the_reason(tmp_path, content, why):
    path = tmp_path / "text.txt"
    path.mkdir() if content is None else path.write_bytes(content)
    options = parse("--train", str(path), "--batch-size", "4", "--seq-size", "10")
    assert re.search(rf"text\.txt.*{why}", refusal(util.load_text, options))


def test_a_validation_text_of_one_character_is_refused(trained, tmp_path):
    (tmp_path / "val.txt").write_text("x")
    options = parse("--train", trained.text, "--val", str(tmp_path / "val.txt"))
    assert "val.txt has 1 character; a validation text needs at least 2" in refusal(util.load_text, options)


@pytest.mark.parametrize("option", ["--train", "--val"])
def test_an_empty_path_is_a_mistake_and_not_the_default(trained, option):
    options = parse("--train", trained.text, option, "")
    assert "cannot read ''" in refusal(util.load_text, options)


@pytest.mark.parametrize("own_validation", [True, False])
@MODEST
@given(batch_size=st.integers(1, 12), seq_size=st.integers(1, 30))
def test_a_text_of_exactly_the_least_length_will_do_and_a_shorter_one_will_not(own_validation, batch_size, seq_size):
    with tempfile.TemporaryDirectory() as folder:
        train, val = Path(folder, "train.txt"), Path(folder, "val.txt")
        val.write_text("ab")
        words = ["--train", str(train), "--batch-size", str(batch_size), "--seq-size", str(seq_size)]
        words += ["--val", str(val)] if own_validation else []
        least = batch_size * seq_size + 1  # one batch, and the target of its last step
        if not own_validation:  # a tenth is held out, and is to have two characters
            least = next(n for n in range(20, 2 * least + 20) if n - n // 10 >= least)
        train.write_text("a" * (least - 1))
        line = refusal(util.load_text, parse(*words))
        assert f"{least - 1:,} characters" in line and line.endswith(f" need at least {least:,}\n")
        train.write_text("a" * least)
        text = util.load_text(parse(*words))
        assert len(text.train) > batch_size * seq_size and len(text.validation) >= 2
        assert len(text.train) + len(text.validation) == least + 2 * own_validation


@pytest.mark.parametrize("content", [b"", b"no checkpoint\n", b"PK\x03\x04 no zip", None],
                         ids=["empty", "text", "damaged zip", "folder"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "relu.npz"
    path.mkdir() if content is None else path.write_bytes(content)
    assert "relu.npz is no checkpoint to go on from: " in refusal(util.load_checkpoint, path, "relu")


@pytest.mark.parametrize("folder", ["nowhere", "text.txt"])
def test_without_saved_weights_the_user_is_told_to_train_first(tmp_path, folder):
    (tmp_path / "text.txt").write_text("a file, not a folder")
    line = refusal(util.load_checkpoint, tmp_path / folder / "relu.npz", "relu")
    assert "there is no saved network" in line and "train one first: python relu.py" in line


def test_a_folder_whose_name_is_too_long_holds_no_checkpoint(tmp_path):
    assert "name too long" in refusal(util.load_checkpoint, tmp_path / ("long" * 100) / "relu.npz", "relu")


@pytest.mark.parametrize("option, words", {
    "--epochs": "0 -1 1.5 1000001 many",
    "--hidden-size": "0 -8 1e3 100001",
    "--depth": "0 -1 1001 2.0",
    "--dropout": "1 1.5 -0.1 nan inf 0.99999 half",
    "--learning-rate": "0 -0.01 -0.0 nan inf -inf 1e999",
    "--batch-size": "0 -1 0.5",
    "--seq-size": "0 -1 0.5",
    "--seed": "-1 0.5 1000000000000000001",
    "--save-every": "0 -1",
    "--sample": "-1 0.5 1000000001 all",
    "--temperature": "0 -1 nan inf 1e-400",
}.items())
def test_numbers_out_of_range_are_refused_with_the_option_the_word_and_what_is_wanted(option, words):
    for word in words.split():
        line = refusal(parse, f"{option}={word}")
        assert f"argument {option}: {word!r} is not a " in line and re.search(r"number (from|above) \d", line)
        assert option in refusal(parse, option, word)


def test_numbers_at_the_ends_of_their_ranges_are_taken():
    options = parse(*"--dropout 0 --epochs 1000000 --depth 1 --sample 0 --seed 0 --temperature 1e-300".split())
    assert (options.dropout, options.epochs, options.depth, options.sample) == (0, 10**6, 1, 0)
    assert (options.seed, options.temperature) == (0, 1e-300)
    assert parse("--dropout", "0.9999").dropout == 0.9999


def test_without_words_the_options_are_the_scripts_constants_and_nothing_counts_as_given():
    options = parse()
    assert DEFAULTS.items() <= vars(options).items() and options.given == {}
    assert options.train is options.val is options.sample is None and not options.resume and not options.quiet


def test_an_option_may_not_be_shortened_because_a_later_one_could_make_it_ambiguous():
    assert "unrecognized arguments: --hidden" in refusal(parse, "--hidden", "8")


def test_help_names_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "--temperature T" in text
    for name, value in DEFAULTS.items():
        assert re.search(rf"--{name.replace('_', '-')} [A-Z] [^(]*\(default {value}\)", text)


options = ["--" + name.replace("_", "-") for name in vars(parse()) if name != "given"]
names = st.sampled_from([*options, "--", "-", "-x"])
values = st.one_of(st.integers().map(str), st.floats().map(str), st.text(max_size=6), st.just("--"))
option_words = st.one_of(names, values, st.tuples(names, values).map("=".join))


@settings(MODEST, max_examples=300)
@given(st.lists(option_words.filter(lambda word: not word.startswith(("-h", "--help"))), max_size=5))
@example(["two\nlines", "\r", "\u2028"])
@example(["--train=--"])
@example(["--seed=--"])
def test_any_words_are_either_understood_or_refused_in_one_line(words):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options = parse(*words)
    except SystemExit as end:
        assert end.code == 2 and len(errors.getvalue().splitlines()) == 1
    else:
        assert errors.getvalue() == "" and not any(isinstance(value, list) for value in vars(options).values())
        assert options.batch_size > 0 and 0 <= options.dropout < 1 and options.temperature > 0 and options.seed >= 0
