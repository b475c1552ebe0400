"""What several tests share."""

import functools
import inspect


def of(model, name, **settings):
    """Return a function of a script that takes the settings among its parameters (beta, clip_norm, ...) from there."""
    function = getattr(model, name)
    own = {key: model.SETTINGS[key][0] for key in inspect.signature(function).parameters if key in model.SETTINGS}
    return functools.partial(function, **{**own, **settings})
