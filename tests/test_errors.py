from __future__ import annotations

import inspect

from autoprompt import errors
from autoprompt.errors import AutopromptError, InputError, nearest


def test_every_error_is_in_the_tree_and_in_its_picture() -> None:
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]
    assert len(found) > 10
    for cls in found:
        assert issubclass(cls, AutopromptError)
        assert cls.__name__ in (errors.__doc__ or "")


def test_message_and_hint() -> None:
    error = InputError("what came", hint="what to do")
    assert str(error) == "what came\n  hint: what to do"
    assert (error.message, error.hint) == ("what came", "what to do")
    assert str(InputError("alone")) == "alone"
    assert isinstance(error, ValueError)


def test_nearest() -> None:
    assert nearest("tex", ["text", "label"]) == " (did you mean 'text'?)"
    assert nearest("zzz", ["text", "label"]) == ""
    assert nearest("x", []) == ""
