"""What a file in ``search_spaces`` may say, and whether its slots refer to each other soundly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from autoprompt.errors import SpecError, TemplateError, nearest
from autoprompt.slots import IMPLICIT_WORDS, Slot, Spec, Tokens
from autoprompt.template import Template


class SpaceSpec(Spec):
    """A file in ``search_spaces``.

    Attributes:
        format: version of the file format.
        title: a few words.
        about: what it is for and where its choices come from.
        template: the prompt, with ``[[ slot ]]``, ``{{ field }}`` and ``{{ answer }}``.
        slots: name to slot.
        fields: the fields that the task must have, where declared.
        labels: the labels that the task must have, where declared.
    """

    format: Literal["autoprompt-space/1"] = "autoprompt-space/1"
    title: str = ""
    about: str = ""
    template: str = Field(min_length=1)
    slots: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Slot] = Field(default_factory=dict)
    fields: list[str] | None = None
    labels: list[str] | None = None

    @property
    def token_slots(self) -> dict[str, Tokens]:
        """The slots that hold tokens."""
        return {name: slot.tokens for name, slot in self.slots.items() if slot.tokens is not None}

    @property
    def words_slot(self) -> str | None:
        """Name of the ``map`` slot, None where the task's own label words are used."""
        return next((name for name, slot in self.slots.items() if slot.map is not None), None)

    def templates(self) -> list[tuple[tuple[str | int, ...], str]]:
        """(place in the file, text) of every text of a slot that is read as a template."""
        return [
            (("slots", name, *place), text)
            for name, slot in self.slots.items()
            for place, text in slot.templates()
        ]


def references_in(text: str, spec: SpaceSpec) -> tuple[str, ...]:
    """Names of the declared slots that a text refers to, in order."""
    return tuple(name for name in Template(text).references() if name in spec.slots)


def check_references(spec: SpaceSpec, at: Callable[..., str]) -> None:
    """Check that slots refer to slots that exist, in no circle, and that every slot can be reached.

    Args:
        spec: the space.
        at: makes the place of an error from the keys that lead there.

    Raises:
        SpecError: they do not; says where.
        TemplateError: brackets that cannot be read.
    """
    leads_to: dict[str, dict[str, None]] = {name: {} for name in ("", *spec.slots)}
    for keys, text in [(("template",), spec.template), *spec.templates()]:
        for name in _references(text, at, keys):
            if name in spec.slots:
                leads_to[str(keys[1]) if len(keys) > 1 else ""][name] = None
            elif name != IMPLICIT_WORDS:
                raise SpecError(
                    f"{at(*keys)}: no slot named {name!r}{nearest(name, spec.slots)}; "
                    f"slots: {', '.join(spec.slots) or 'none'}"
                )
    for name, slot in spec.slots.items():
        for other in _reach(name, leads_to, (), at) if slot.pick is not None else ():
            if spec.slots[other].tokens is not None:
                raise SpecError(
                    f"{at('slots', name, 'pick', 'template')}: leads to slot {other!r}, which holds tokens; they "
                    "stand once in a prompt, and so not in demonstrations",
                    hint=f"let [[ {other} ]] stand outside the demonstrations",
                )
    for name, slot in spec.slots.items():
        for other, allowed in slot.when.items():
            _check_condition(spec, other, allowed, at("slots", name, "when", other))
            leads_to[name][other] = None
    maps = [name for name, slot in spec.slots.items() if slot.map is not None]
    if len(maps) > 1:
        raise SpecError(f"{at('slots', maps[1])}: the label words are given already by the slot {maps[0]!r}")
    reached = _reach("", leads_to, (), at)
    for name in spec.slots:
        if name not in reached and name not in maps:
            raise SpecError(
                f"{at('slots', name)}: is never used: nothing that the template leads to holds [[ {name} ]]"
            )


def _references(text: str, at: Callable[..., str], keys: tuple[str | int, ...]) -> list[str]:
    try:
        return Template(text).references()
    except TemplateError:
        return Template(text, at(*keys)).references()


def _check_condition(spec: SpaceSpec, other: str, allowed: Sequence[str | int], where: str) -> None:
    slot = spec.slots.get(other)
    if slot is None:
        raise SpecError(f"{where}: no slot named {other!r}{nearest(other, spec.slots)}")
    if slot.map is not None or slot.order is not None or slot.tokens is not None:
        raise SpecError(f"{where}: a condition tests one_of, optional or pick slots (got {other!r})")
    if slot.is_written:
        raise SpecError(f"{where}: {other!r} may be edited or written anew, so that no condition can test it")
    values = slot.texts() if slot.pick is None else [str(k) for k in slot.pick.k]
    for value in map(str, allowed):
        if value not in values:
            raise SpecError(f"{where}: {value!r} is no option of {other!r}{nearest(value, values)}")


def _reach(
    name: str, leads_to: Mapping[str, Mapping[str, None]], above: tuple[str, ...], at: Callable[..., str]
) -> set[str]:
    """Names that can be reached from a slot, itself included; refuses circles."""
    if name in above:
        circle = " -> ".join((*above[above.index(name) :], name))
        raise SpecError(f"{at('slots', name)}: slots refer to each other in a circle: {circle}")
    reached = {name}
    for following in leads_to[name]:
        reached |= _reach(following, leads_to, (*above, name), at)
    return reached
