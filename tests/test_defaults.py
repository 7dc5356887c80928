"""A default stands in the value that holds it; a verb's keyword repeats it for those who read the signature."""

import inspect
from dataclasses import fields

import pytest

import penjing as pj
from penjing.planning import Deployment
from penjing.techniques import Scope
from penjing.training import TrainingSettings
from penjing.training.run import RunOptions

# A verb's log=None means the logger of `RunOptions`.
VALUES = (TrainingSettings(), RunOptions(log=None), Deployment(), Scope())


@pytest.mark.parametrize(
    ("verb", "part"),
    [(pj.recover, TrainingSettings), (pj.recover, RunOptions), (pj.compress, Scope), (pj.compress, Deployment)],
)
def test_every_field_of_a_value_is_a_keyword(verb, part):
    assert {field.name for field in fields(part)} <= inspect.signature(verb).parameters.keys()


@pytest.mark.parametrize("verb", [pj.recover, pj.compress])
def test_keywords_have_the_defaults_of_the_values_that_they_become(verb):
    held = {field.name: getattr(value, field.name) for value in VALUES for field in fields(value)}
    own = {name: one.default for name, one in inspect.signature(verb).parameters.items() if name in held}
    assert own == {name: held[name] for name in own}
