"""autoprompt: find a better prompt for your task and your model, and measure by how much.

    import autoprompt

    result = autoprompt.optimize("reviews", "bundled:causal", budget=6000)
    print(result)
    result.save("best_prompt.txt")

Names are loaded on first use, so that importing the package costs nothing: torch alone takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "AutopromptError": "errors",
    "Budget": "budget",
    "Evaluation": "result",
    "Example": "task",
    "Prompt": "prompt",
    "Result": "result",
    "Round": "api",
    "SearchSpace": "space",
    "Strategy": "strategies",
    "Task": "task",
    "bootstrap": "bootstrapping",
    "estimate": "forecast",
    "evaluate": "api",
    "find_label_words": "label_words",
    "import_template": "importers",
    "load_model": "models.load",
    "optimize": "api",
    "optimize_relations": "relations",
    "read_prompt": "exporters",
    "edit_space": "triggers",
    "soft_space": "triggers",
    "trigger_space": "triggers",
}

__all__ = [
    "AutopromptError",
    "Budget",
    "Evaluation",
    "Example",
    "Prompt",
    "Result",
    "Round",
    "SearchSpace",
    "Strategy",
    "Task",
    "__version__",
    "bootstrap",
    "edit_space",
    "estimate",
    "evaluate",
    "find_label_words",
    "import_template",
    "load_model",
    "optimize",
    "optimize_relations",
    "read_prompt",
    "soft_space",
    "trigger_space",
]

if TYPE_CHECKING:
    from autoprompt.api import Round as Round
    from autoprompt.api import evaluate as evaluate
    from autoprompt.api import optimize as optimize
    from autoprompt.bootstrapping import bootstrap as bootstrap
    from autoprompt.budget import Budget as Budget
    from autoprompt.errors import AutopromptError as AutopromptError
    from autoprompt.exporters import read_prompt as read_prompt
    from autoprompt.forecast import estimate as estimate
    from autoprompt.importers import import_template as import_template
    from autoprompt.label_words import find_label_words as find_label_words
    from autoprompt.models.load import load_model as load_model
    from autoprompt.prompt import Prompt as Prompt
    from autoprompt.relations import optimize_relations as optimize_relations
    from autoprompt.result import Evaluation as Evaluation
    from autoprompt.result import Result as Result
    from autoprompt.space import SearchSpace as SearchSpace
    from autoprompt.strategies import Strategy as Strategy
    from autoprompt.task import Example as Example
    from autoprompt.task import Task as Task
    from autoprompt.triggers import edit_space as edit_space
    from autoprompt.triggers import soft_space as soft_space
    from autoprompt.triggers import trigger_space as trigger_space


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoprompt' has no attribute {name!r}")
    return getattr(importlib.import_module(f"autoprompt.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
