"""Units of the networks that tell something: a passage of text, tinted by what each of them does while it is read.

    python -m graphs.neurons                              measure, and draw runs/neurons.png
    python -m graphs.neurons --model relu --unit 2:168    any unit (layer:number), on any --text
    python -m graphs.neurons --redraw                     draw from graphs/neurons.csv, the published measurements

After Karpathy, Johnson, Li 2015 (arXiv 1506.02078), but no unit is picked by hand. For each question below, the unit is
taken, of all layers of all networks, that answers it best on one part of the text; how well is then measured on the
next part, and the passage drawn comes after both. The measure of a yes or no is the area under the ROC curve (AUC): the
probability that the unit is higher on a yes than on a no, 0.5 if it tells nothing. That of a number is the correlation.
A unit that answers by going down is not looked for.
"""

import numpy as np

import util
from graphs import common

PART = 20_000   # characters to choose on, and as many to measure on
PASSAGE = 250   # characters to draw, up to the end of a line
DETECTS = {"AUC": 0.9, "correlation": 0.7}  # what a detector must come to
TITLES = {"name": "In a speaker's name", "word": "A word ends here", "line": "The line ends here",
          "capital": "A capital comes next", "column": "Position in the line",
          "blank": "Distance from a blank line"}
HEADER = "question,character,activation"  # of the passage, as a share of the largest of the measured part
KEYS = [*TITLES, "unit"]


def answers(text):
    """Return the answer to each question at each character of a text: arrays (N,) of bool or int."""
    following = text[1:] + "\n"
    line_starts = np.cumsum([0] + [character == "\n" for character in text[:-1]])
    lines = text.split("\n")
    speaks = [bool(line) and line.endswith(":") and (i == 0 or not lines[i - 1]) for i, line in enumerate(lines)]
    column, blank = np.zeros(len(text), int), np.zeros(len(text), int)
    for i in range(1, len(text)):
        column[i] = 0 if text[i - 1] == "\n" else column[i - 1] + 1
        blank[i] = 0 if text[i - 2:i] == "\n\n" else blank[i - 1] + 1
    return {"name": np.array([speaks[line] for line in line_starts]),
            "word": np.array([a.isalpha() and not b.isalpha() for a, b in zip(text, following)]),
            "line": np.array([b == "\n" for b in following]),
            "capital": np.array([b.isupper() for b in following]),
            "column": column, "blank": blank}


def activations(model, weights, vocabulary, text):
    """Return the hidden states (N, D, H) of a network that reads a text as one stream from a zero state."""
    D, (H, V) = sum(name.startswith("Whh") for name in weights), weights["Why"].shape
    inputs = util.one_hot(util.encode(text, vocabulary)[:, None], V)
    _, _, hs = model.forward(weights, inputs, np.zeros((D, 1, H), np.float32))
    return hs[:, 1:, 0].swapaxes(0, 1)


def tells(values, answer):
    """Return how well units (N, units) tell an answer (N,): areas under the ROC curve, or correlations, (units,)."""
    if answer.dtype != bool:
        values, answer = values - values.mean(axis=0), answer - answer.mean()
        sizes = np.linalg.norm(values, axis=0) * np.linalg.norm(answer)
        return answer @ values / np.where(sizes > 0, sizes, 1)
    if answer.all() or not answer.any():
        return np.full(values.shape[1], 0.5)
    areas = []
    for unit in values.T:
        no, yes = np.sort(unit[~answer]), unit[answer]
        lower = np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")  # a tie counts half
        areas.append(lower.mean() / 2 / len(no))
    return np.array(areas)


def passage(text):
    """Return the slice of a text that is drawn: lines from the first speech behind both parts on, whole if not long."""
    start = 0
    if len(text) > 2 * PART + PASSAGE:
        start = max(text.find("\n\n", 2 * PART, -PASSAGE) + 2, 2 * PART)  # not every text has speeches
    end = text.find("\n", start + PASSAGE - 1, start + 3 * PASSAGE) + 1
    return slice(start, end or start + PASSAGE)


def measure(options):
    """Return what is said of the units, and their activations on the passage."""
    if bool(options.model) != bool(options.unit):
        util.fail("--model and --unit go together: --model relu --unit 2:168")
    networks = common.load_networks(options.runs)
    text = common.read_known(options.text, networks, PASSAGE if options.unit else 2 * PART + 2 * PASSAGE)
    shown = passage(text)
    if options.unit:
        if options.model not in networks:
            util.fail(f"there is no network {options.model}; there are {', '.join(networks)}")
        networks = {options.model: networks[options.model]}
    states = {name: activations(common.MODELS[name], weights, meta["vocabulary"], text[:shown.stop])
              for name, (weights, meta) in networks.items()}
    units = the_unit(options, states) if options.unit else choose(states, answers(text))
    curves = {}
    for question, unit in units.items():
        values = states[unit["model"]][:, unit["layer"], unit["unit"]]
        large = np.quantile(np.abs(values), 0.995) or 1
        curves[question] = list(enumerate(np.clip(values[shown] / large, -1, 1)))
    return {**common.describe(options.text, networks), "passage": text[shown], "units": units}, curves


def choose(states, truth):
    """Return for each question which unit tells it best on the first part, and how well on the second."""
    units = {}
    for question in TITLES:
        answer, found = truth[question], []
        for name, hs in states.items():
            _, D, H = hs.shape
            scores = tells(hs[:PART].reshape(PART, D * H), answer[:PART])
            found.append((scores.max(), name, *divmod(int(scores.argmax()), H)))
        _, name, layer, unit = max(found)
        score = tells(states[name][PART:2 * PART, layer, [unit]], answer[PART:2 * PART])[0]
        units[question] = {"model": name, "layer": layer, "unit": unit, "score": float(score),
                           "measure": "AUC" if answer.dtype == bool else "correlation"}
    return units


def the_unit(options, states):
    """Return the same for the unit that the options name; ends the program if it does not exist."""
    (name, hs), = states.items()
    layers, units = hs.shape[1:]
    layer, _, unit = options.unit.partition(":")
    if not (layer.isdecimal() and unit.isdecimal() and int(layer) < layers and int(unit) < units):
        util.fail(f"--unit {options.unit} is no unit of {name}: it has layers 0 to {layers - 1} with units 0 to "
                  f"{units - 1} each, as in --unit 2:168")
    return {"unit": {"model": name, "layer": int(layer), "unit": int(unit)}}


def draw(figure, about, curves):
    """Draw the passage once for each unit."""
    text, units = about["passage"], about["units"]
    for axes, (question, points) in zip(common.panels(figure, text, len(curves)), curves.items()):
        title = "{model}, layer {layer}, unit {unit}".format(**units[question])
        if question != "unit":
            kind, score = units[question]["measure"], units[question]["score"]
            detects = "" if score >= DETECTS[kind] else " (no detector)"
            title = f"{TITLES[question]}{detects}: {title}, {kind} {score:.2f}"
        axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
        common.draw_text(axes, text, points[:, 1])


if __name__ == "__main__":
    common.main(__doc__, {"neurons": (HEADER, KEYS, (7, 10), measure, draw)},
                {"model": (str, None, "MODEL", "draw a unit of this network"),
                 "unit": (str, None, "LAYER:UNIT", "which unit that is")})
