"""A default stands in the value that holds it; a verb's keyword repeats it for those who read the signature."""

import inspect
from dataclasses import fields

import pytest

import penjing as pj
from penjing.cli.compressing import compress_command
from penjing.cli.training_options import TrainingOptions
from penjing.planning import Deployment
from penjing.run.request import CompressRequest
from penjing.techniques import Scope
from penjing.training import TrainingSettings
from penjing.training.run import RunOptions

VALUES = (TrainingSettings(), RunOptions(log=None), Deployment(), Scope())  # log=None means the logger of `RunOptions`
HELD = {field.name: getattr(value, field.name) for value in VALUES for field in fields(value)}


@pytest.mark.parametrize(
    ("verb", "part"),
    [(pj.recover, TrainingSettings), (pj.recover, RunOptions), (pj.compress, Scope), (pj.compress, Deployment)],
)
def test_every_field_of_a_value_is_a_keyword(verb, part):
    assert {field.name for field in fields(part)} <= inspect.signature(verb).parameters.keys()


@pytest.mark.parametrize("verb", [pj.recover, pj.compress])
def test_keywords_have_the_defaults_of_the_values_that_they_become(verb):
    own = {name: one.default for name, one in inspect.signature(verb).parameters.items() if name in HELD}
    assert own == {name: HELD[name] for name in own}


def test_what_was_asked_has_the_defaults_of_the_verb_and_of_the_command():
    asked = {name: one.default for name, one in inspect.signature(CompressRequest).parameters.items()}
    verb, command = (inspect.signature(one).parameters for one in (pj.compress, compress_command))
    assert asked["techniques"] == verb["techniques"].default == tuple(command["techniques"].default.split(","))
    assert asked["solver"] == verb["solver"].default == command["solver"].default


def test_options_of_the_command_line_have_them_too():
    given = TrainingOptions().keywords()
    assert given == {name: HELD[name] for name in given}
