"""States that hold for the length of a block: transformers quiet, a model without dropout and with fused steps."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from transformers.activations import FastGELUActivation, NewGELUActivation


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and notes off the screen inside the block, and only there."""
    log = transformers.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    log.set_verbosity_error()
    log.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            log.enable_progress_bar()


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off inside the block; the user's model is left as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def routed(model: Any, name: str) -> Iterator[None]:
    """Route the model's attention through the function of that name inside the block; the user's model is left as it
    was.
    """
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    for config, _ in before:
        config._attn_implementation = name
    try:
        yield
    finally:
        for config, earlier in before:
            config._attn_implementation = earlier


@contextlib.contextmanager
def fused(model: Any) -> Iterator[None]:
    """Inside the block, run the tanh form of GELU, which transformers spells out in eight steps over the widest
    tensors of the model, as torch's one step; the user's model is left as it was.
    """
    spelled_out = [
        module
        for module in model.modules()
        if type(module) in (NewGELUActivation, FastGELUActivation) and "forward" not in vars(module)
    ]
    for module in spelled_out:
        module.forward = _tanh_gelu
    try:
        yield
    finally:
        for module in spelled_out:
            del module.forward


def _tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")
