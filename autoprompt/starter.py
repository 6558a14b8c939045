"""What ``autoprompt init NAME`` writes: a task, its rows and a search space that run as they are, or such for given rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

from autoprompt import catalog
from autoprompt.errors import InputError
from autoprompt.starter_data import files_for, guess
from autoprompt.study import write_atomically

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

_TASK = """\
# A task: data, labels, and the manual prompt to beat. Try it:
#   autoprompt optimize NAME --model toy --budget 200
format: autoprompt-task/1
kind: classification          # or: multiple_choice, cloze, generation
title: What guests wrote, happy or not
data:
  source: NAME.jsonl          # beside this file; also .csv, .tsv, .parquet, or a Hugging Face dataset id
  columns: {text: text}       # field that prompts read: column of the data
  target: label               # column with the right answer
labels: [happy, unhappy]
words:                        # the words the model says for each label, several count together; left out: the labels
  happy: [good]
  unhappy: [bad]
# {{ text }} is a field; {{ answer }} marks where the model answers: at the end for causal models.
prompt: "{{ text }} It was {{ answer }}"
metric: accuracy
# Prompts compete on select; demonstrations come from train; test is touched once, at the end.
split: {seed: 0, train: 10, select: 10, test: 20}
space: NAME                   # search_spaces/NAME.yaml
"""

_SPACE = """\
# A search space: every choice in a slot is a prompt that may be tried. The first choice is the default.
format: autoprompt-space/1
title: Ways to ask whether a guest was happy
# {{ field }} is data and stays; [[ slot ]] is replaced by one of its choices. An empty slot leaves no gap.
template: |
  [[ demos ]]
  [[ instruction ]]
  [[ lead ]] {{ text }}
  [[ cue ]] {{ answer }}
slots:
  instruction:
    optional:                 # nothing, or one of these
      - Read the review and say how the guest felt.
      - Is the opinion below good or bad?
  lead:
    one_of: ["Review:", "A guest wrote:", "Text:"]
  cue:
    one_of: ["It was", "Overall feeling:", "Sentiment:", "In short, the visit was"]
  words:                      # label words to try; tied: the first goes with the first, and so on
    map:
      happy: [good, great, positive]
      unhappy: [bad, terrible, negative]
    tied: true
  demos:
    pick:                     # worked examples from train in front of the question
      k: [0, 2]
      per_label: equal
      template: |
        [[ lead ]] {{ text }}
        [[ cue ]] {{ answer }}
      sets: 4
"""

_HAPPY = """\
The soup came at once and tasted wonderful.
A lovely room with a view of the harbour.
Our waiter was friendly and never in a hurry.
Fresh bread every morning, and good coffee with it.
We slept like stones; the beds are excellent.
The child got a small cake, and so we love this place.
Clean towels, warm floors, nothing to complain about.
The guide told funny stories all the way up.
I have seldom had such fine fish inland.
They found my lost scarf and sent it home, brilliant.
The best dumplings between here and the coast.
Quiet garden, ripe figs, a happy afternoon.
Check-in was fast although we came after midnight.
The pianist played what we asked for, and it was superb.
A delightful breakfast under the old lime tree.
Everything was ready when we arrived, perfect.
My parents still speak of the charming owner.
The pool was warm enough for a long swim.
Great value: three courses for the price of a sandwich.
We enjoyed the walk the host drew on a map for us.
"""

_UNHAPPY = """\
The soup was cold and so was the welcome.
Our room looked onto a broken lift shaft.
The waiter was rude when we asked for water.
Stale bread, and coffee that tasted of the pot.
The beds are awful; I slept on the floor.
They forgot the cake and then charged for it, terrible.
Dirty towels and a dead plant on the sill.
The guide was dull and looked at his phone.
I have never had such poor fish, not even on a train.
My scarf is still lost, and nobody wants to look: a sad affair.
The worst dumplings of the whole trip.
A noisy road under the window all night long.
Check-in was slow, with one clerk for thirty people.
The pianist played one song for hours, it was horrible.
A boring breakfast in a cellar without windows.
Nothing was ready when we arrived, a mess.
My parents hated the stairs, which nobody had mentioned.
The pool was closed, which is disappointing in July.
A bad bargain: half a sandwich for the price of three courses.
The map the host drew led us into a swamp, a waste of a day.
"""


def write_starter(
    name: str, folder: Path, data: str | None = None, target: str | None = None
) -> tuple[list[Path], str]:
    """Write ``tasks/NAME.yaml`` and ``search_spaces/NAME.yaml`` below ``folder``; without data ``tasks/NAME.jsonl``, too.

    Args:
        name: of the files.
        folder: where they go.
        data: a file (or folder, or dataset id) to make the task of.
        target: its column of the answer; None: the usual names.

    Returns:
        What was written, and in a line what the rows were taken for (empty without ``data``).

    Raises:
        InputError: the name cannot be a file's, or one of the files is there already (then none is written).
        DataError: the data cannot be read, or tells no task.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"name {name!r}: must be letters, digits, - and _, starting with a letter or digit")
    if target is not None and data is None:
        raise InputError("init: --target names a column of --data, which is missing", hint="--data FILE")
    found = None if data is None else guess(data, target)
    files = _example(name, folder) if found is None else files_for(name, found, folder)
    taken = [str(path.relative_to(folder)) for path in files if path.exists()]
    if taken:
        raise InputError(
            f"init {name}: {', '.join(taken)} already there; nothing was written", hint="choose another name"
        )
    kinds: tuple[catalog.Kind, ...] = ("tasks", "search_spaces")
    for kind in kinds:
        if (catalog.shipped(kind) / f"{name}.yaml").is_file():
            raise InputError(
                f"init {name}: a shipped {'task' if kind == 'tasks' else 'search space'} has this name, and a file here "
                "would hide it",
                hint="choose another name",
            )
    for path, text in files.items():
        try:
            write_atomically(path, text)
        except OSError as error:
            for made in files:  # none of them was there before
                if made.parent.is_dir():
                    made.unlink(missing_ok=True)
            raise InputError(
                f"init {name}: {str(path.relative_to(folder))!r} cannot be written ({error}); nothing was written",
                hint="run it in a folder of your own",
            ) from None
    return list(files), "" if found is None else str(found)


def _example(name: str, folder: Path) -> dict[Path, str]:
    """A task with rows of its own."""
    rows = [
        json.dumps({"text": text, "label": label}, ensure_ascii=False)
        for pair in zip(_HAPPY.splitlines(), _UNHAPPY.splitlines(), strict=True)
        for text, label in zip(pair, ("happy", "unhappy"), strict=True)
    ]
    return {
        folder / "tasks" / f"{name}.jsonl": "\n".join(rows) + "\n",
        folder / "search_spaces" / f"{name}.yaml": _SPACE,
        folder / "tasks" / f"{name}.yaml": _TASK.replace("NAME", name),
    }
