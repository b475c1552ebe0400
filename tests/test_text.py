"""Text on its way to the network: files, characters, indices, batches; the download and the play in its stead."""

import argparse
import collections
import hashlib
import math
import os
import re
import socket
import tempfile
import threading
import tracemalloc
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import util
from helpers import ROOT, end, full_disk, posix, start

PLAY = (ROOT / "data" / "play.txt").read_bytes()

awkward = st.sampled_from("\0\n\r\t\x0b\x0c\x1a\x1c\x85\u2028\u2029\ufeff\uffff\U0010ffff")
texts = st.text(st.one_of(st.characters(codec="utf-8"), awkward), max_size=60)
modest = settings(max_examples=60, deadline=None)


# Characters and indices ------------------------------------------------------------------------------------------

def decode(indices, vocabulary):
    return "".join(vocabulary[index] for index in indices)


@modest
@given(texts, texts)
def test_encode_gives_each_characters_place_in_the_vocabulary(text, more):
    vocabulary = "".join(sorted(set(text + more)))
    indices = util.encode(text, vocabulary)
    assert indices.shape == (len(text),) and indices.dtype.kind == "u"
    assert decode(indices, vocabulary) == text


@modest
@given(texts, texts)
def test_the_vocabulary_of_a_run_is_each_character_of_both_texts_once_and_sorted(one, other):
    one, other = (text.replace("\r", "\n") + "ab" for text in (one, other))
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "one.txt"), Path(folder, "other.txt")
        for path, content in zip(paths, (one, other)):
            path.write_bytes(content.encode())
        text = util.load_text(argparse.Namespace(train=paths[0], val=paths[1], batch_size=1, seq_size=1))
    assert list(text.vocabulary) == sorted(set(one.removeprefix("\ufeff") + other.removeprefix("\ufeff")))
    assert decode(text.validation, text.vocabulary) == other.removeprefix("\ufeff")


@pytest.mark.parametrize("size, dtype", [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65537, np.uint32)])
def test_indices_take_the_smallest_type_that_holds_them(size, dtype):
    characters = "".join(map(chr, [*range(0xd800), *range(0xe000, 0xe000 + 65537)][:size]))
    indices = util.encode(characters[::-1], characters)
    assert indices.dtype == dtype and np.array_equal(indices, np.arange(size)[::-1])


def test_megabytes_of_text_are_encoded_into_one_byte_per_character_with_little_room_beside_them():
    text = "To be, or not: 'tis\n" * 400_000
    vocabulary = "".join(sorted(set(text)))
    tracemalloc.start()
    try:
        indices = util.encode(text, vocabulary)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(text)  # a list of integers alone would take 8 bytes per character, all UTF-32 at once 4
    assert indices.dtype == np.uint8 and decode(indices[:20], vocabulary) == text[:20]
    assert np.array_equal(indices.reshape(-1, 20), np.broadcast_to(indices[:20], (400_000, 20)))


@modest
@given(st.lists(st.integers(0, 6), max_size=24), st.sampled_from([np.float32, np.float64]))
def test_one_hot_has_a_single_1_at_each_index(indices, dtype):
    indices = np.array(indices, np.uint8).reshape(-1, 2 - len(indices) % 2)
    vectors = util.one_hot(indices, 7, dtype)
    assert vectors.shape == (*indices.shape, 7) and vectors.dtype == dtype
    assert np.array_equal(vectors.argmax(axis=-1), indices)
    assert (vectors.sum(axis=-1) == 1).all() and ((vectors == 0) | (vectors == 1)).all()


# Files -----------------------------------------------------------------------------------------------------------

@modest
@given(texts, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_a_file_is_read_without_its_byte_order_mark_and_with_every_newline_as_one_character(text, newline, mark):
    content = "x" + text.replace("\n", newline)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(b"\xef\xbb\xbf" * mark + content.encode())
        assert util.read_text(path) == content.replace("\r\n", "\n").replace("\r", "\n")


def test_without_a_validation_text_the_last_tenth_is_held_out(tmp_path):
    (tmp_path / "text.txt").write_text("ab" * 45 + "cdefghijkl")
    text = util.load_text(argparse.Namespace(train=tmp_path / "text.txt", val=None, batch_size=1, seq_size=1))
    assert decode(text.train, text.vocabulary) == "ab" * 45
    assert decode(text.validation, text.vocabulary) == "cdefghijkl"


# Batches and streams ---------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 7), st.integers(1, 9))


@modest
@given(sizes, st.integers(0, 200))
def test_an_epoch_reads_each_of_the_equal_stretches_in_order_without_gap_or_overlap(size, more):
    B, T = size
    text = np.arange(B * T + 1 + more, dtype=np.int32)  # each character tells its place
    stretch = (len(text) - 1) // B
    batches = [util.batch(text, number, B, T) for number in range(stretch // T)]
    inputs, targets = (np.concatenate(parts) for parts in zip(*batches))
    steps = np.arange(stretch // T * T)[:, None]
    assert np.array_equal(inputs, steps + np.arange(B) * stretch)
    assert np.array_equal(targets, inputs + 1) and inputs.dtype == targets.dtype == text.dtype
    assert stretch - len(inputs) < T  # what is left of a stretch is less than one more batch


@modest
@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 40))
def test_streams_make_each_character_but_the_first_a_target_once_with_the_one_before_as_its_input(length, count, T):
    text = np.arange(length, dtype=np.uint16)
    parts = list(util.streams(text, count, T))
    assert all(len(inputs) == T for inputs, _ in parts[:-1]) and 0 < len(parts[-1][0]) <= T
    inputs, targets = map(np.concatenate, zip(*parts))
    assert inputs.shape == targets.shape == (math.ceil((length - 1) / count), count)
    inside = targets >= 0
    assert np.array_equal(np.sort(targets[inside]), np.arange(1, length))
    assert np.array_equal(inputs[inside], targets[inside] - 1)
    assert (np.diff(targets, axis=0)[inside[1:]] == 1).all()  # each stream is contiguous,
    assert (inside[:-1] | ~inside[1:]).all()  # and where it has run out of text it stays so


def test_the_hash_of_a_text_says_where_training_ends_and_validation_begins(tmp_path):
    hashes = set()
    for cut in 3000, 3100:
        for name, part in ("train", PLAY[:cut]), ("val", PLAY[cut:4000]):
            (tmp_path / name).write_bytes(part)
        options = argparse.Namespace(train=tmp_path / "train", val=tmp_path / "val", batch_size=10, seq_size=10)
        hashes.add(util.load_text(options).sha256)
    assert len(hashes) == 2


# Download --------------------------------------------------------------------------------------------------------

SERVED = "".join(f"{number}: a line of a play that nobody wrote\n" for number in range(12_000)).encode()
FILES = "shakespear_train.txt", "shakespear_val.txt"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder for the data, empty but for the play."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "play.txt").write_bytes(PLAY)
    monkeypatch.setattr(util, "DATA", folder)
    monkeypatch.setattr(util, "PLAY", folder / "play.txt")
    monkeypatch.setattr(util, "SHAKESPEARE_SHA256", hashlib.sha256(SERVED).hexdigest())
    for name in "no_proxy", "NO_PROXY":
        monkeypatch.setenv(name, "*")
    return folder


@pytest.fixture
def site(server, monkeypatch):
    """The web server, from which the text is now downloaded."""
    server.content = SERVED
    monkeypatch.setattr(util, "SHAKESPEARE", f"http://127.0.0.1:{server.server_port}/input.txt")
    return server


def assert_fallen_back(data, capsys, why):
    """Ask for the default texts; assert that they are the play, that one line tells why, and no file is left."""
    assert util.default_texts() == (data / "play.txt", None)
    output, errors = capsys.readouterr()
    line, = errors.splitlines()
    assert output.startswith("Downloading tinyshakespeare") and output.count("\n") == 1
    assert re.search(f"was not downloaded: [^<>[]*{why}", line) and line.endswith("play.txt; the next run tries again")
    assert [path.name for path in data.iterdir()] == ["play.txt"]


def test_a_download_is_split_into_training_and_validation_text_as_in_the_original(data, site, capsys):
    assert util.default_texts() == tuple(data / name for name in FILES)
    train, validation = ((data / name).read_bytes() for name in FILES)
    assert validation == SERVED[398254:488961] and train == SERVED[:398254] + SERVED[488961:]
    assert sorted(path.name for path in data.iterdir()) == ["play.txt", *FILES]
    assert capsys.readouterr().out.count("\n") == 1 and site.requests == 1


def test_a_download_is_prepared_on_the_disk_where_it_stays(data, site, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(data / "elsewhere"))  # of another disk, no file can be moved here
    assert util.default_texts() == tuple(data / name for name in FILES)


def test_nothing_is_downloaded_when_both_files_are_there(data, site, capsys):
    for name in FILES:
        (data / name).write_text("my own text")
    assert util.default_texts() == tuple(data / name for name in FILES)
    assert site.requests == 0 and capsys.readouterr().out == ""
    assert all((data / name).read_text() == "my own text" for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_when_one_of_the_files_is_missing_both_are_downloaded(data, site, name):
    (data / name).write_text("alone")
    assert util.default_texts() == tuple(data / name for name in FILES) and site.requests == 1
    assert sum((data / name).stat().st_size for name in FILES) == len(SERVED)


def test_a_validation_text_of_ones_own_goes_with_the_downloaded_training_text(data, site):
    own = data / "own.txt"
    own.write_text("nobody")
    options = argparse.Namespace(train=None, val=own, batch_size=10, seq_size=10)
    text = util.load_text(options)
    assert text.path.name == FILES[0] and decode(text.validation, text.vocabulary) == "nobody"


@pytest.mark.parametrize("answer, why", [
    (dict(content=SERVED.replace(b"nobody", b"no one")), "SHA-256"),
    (dict(content=b""), "SHA-256"),
    (dict(content=SERVED[:5000], length=len(SERVED)), "broke off"),
    (dict(status=404), "Not Found"),
], ids=["wrong text", "empty", "cut", "404"])
def test_a_bad_answer_leaves_no_file_and_the_play_stands_in(data, site, capsys, answer, why):
    vars(site).update(answer)
    assert_fallen_back(data, capsys, why)


def test_a_refused_connection_leaves_no_file_and_the_play_stands_in(data, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr(util, "SHAKESPEARE", f"http://127.0.0.1:{port}/input.txt")
    assert_fallen_back(data, capsys, "refused")


def test_an_address_of_a_proxy_that_is_none_leaves_no_file_and_the_play_stands_in(data, monkeypatch, capsys):
    for name, value in ("https_proxy", "http:/proxy"), ("no_proxy", ""), ("NO_PROXY", ""):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(urllib.request, "_opener", None)  # which remembers the proxy of the download before
    assert_fallen_back(data, capsys, "broke off")


def test_a_server_that_never_answers_is_waited_for_a_few_seconds_and_the_play_stands_in(data, monkeypatch, capsys):
    timeouts, urlopen = [], urllib.request.urlopen

    def impatient(url, timeout):
        timeouts.append(timeout)
        return urlopen(url, timeout=0.2)
    monkeypatch.setattr(urllib.request, "urlopen", impatient)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(util, "SHAKESPEARE", f"http://127.0.0.1:{silent.getsockname()[1]}/input.txt")
        assert_fallen_back(data, capsys, "timed out")
    assert 1 <= timeouts[0] <= 30


@posix
@pytest.mark.parametrize("validation", [slice(0, 100), slice(100, len(SERVED))], ids=["first file", "second file"])
def test_a_disk_that_gets_full_leaves_no_file_and_the_play_stands_in(data, site, monkeypatch, capsys, validation):
    monkeypatch.setattr(util, "VALIDATION", validation)
    with full_disk(200_000):
        assert_fallen_back(data, capsys, "too large")


def test_four_programs_that_download_at_the_same_time_do_not_get_in_each_others_way(data, site):
    code = ("import sys, pathlib, util; util.SHAKESPEARE, util.SHAKESPEARE_SHA256, folder = sys.argv[1:]; "
            "util.DATA = pathlib.Path(folder); print([path.read_bytes()[:2] for path in util.default_texts()])")
    words = ["-c", code, util.SHAKESPEARE, util.SHAKESPEARE_SHA256, data]
    site.meeting = threading.Barrier(4)  # all are answered in the same instant
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    programs = [start(words, cwd=ROOT, env=environment) for _ in range(4)]
    ends = [end(program)[0].splitlines()[1:] for program in programs]
    assert ends == [[str([SERVED[:2], SERVED[398254:398256]])]] * 4
    assert sorted(os.listdir(data)) == ["play.txt", *FILES]


# The play --------------------------------------------------------------------------------------------------------

def test_the_play_is_long_enough_and_plain_ascii():
    assert len(PLAY) >= 80_000 and PLAY.isascii() and b"\r" not in PLAY and b"\t" not in PLAY


def test_the_play_has_tinyshakespeares_format_and_a_cast_of_a_dozen_or_more():
    speeches = [speech.split("\n") for speech in PLAY.decode().rstrip("\n").split("\n\n")]
    cast = collections.Counter(speaker for speaker, *_ in speeches)
    assert all(re.fullmatch(r"[A-Z][A-Za-z' ]*:", speaker) for speaker in cast)
    assert all(lines and all(lines) for _, *lines in speeches)
    assert sum(count >= 5 for count in cast.values()) >= 12


def test_hardly_a_line_of_the_play_comes_twice():
    lines = [line for speech in PLAY.decode().rstrip("\n").split("\n\n") for line in speech.split("\n")[1:]]
    assert len(lines) - len(set(lines)) < 0.01 * len(lines)
