"""Your own data and your own search space, from Python.

    python examples/own_task.py

The toy model stands in for yours: put a Hugging Face id, a folder or ``(model, tokenizer)`` in its place.
"""

import autoprompt

PRAISE = ("fast", "friendly", "excellent", "wonderful", "perfect", "clean")
BLAME = ("slow", "rude", "broken", "terrible", "dirty", "disappointing")
THINGS = (
    "The reply to ticket {n} was",
    "In case {n} the technician was",
    "Order {n} was",
    "Our call number {n} was",
)


def main() -> None:
    """Build a task from rows, a space from a dictionary, and search."""
    rows = [
        {"text": f"{thing.format(n=number)} {word}.", "mood": mood}
        for mood, words in (("praise", PRAISE), ("blame", BLAME))
        for number, word in enumerate(words)
        for thing in THINGS
    ]
    task = autoprompt.Task.from_rows(
        rows,
        name="tickets",
        kind="classification",
        target="mood",
        prompt="{{ text }} Maybe {{ answer }}",
        words={"praise": ["good"], "blame": ["bad"]},
    )
    space = autoprompt.SearchSpace.from_dict(
        {
            "format": "autoprompt-space/1",
            "title": "how a support ticket went",
            "template": "[[ instruction ]]\n{{ text }} [[ cue ]] {{ answer }}",
            "slots": {
                "instruction": {"optional": ["Judge the feeling of this review.", "Read the review."]},
                "cue": {"one_of": ["Maybe", "Overall it was", "Sentiment:", "My opinion:"]},
                "words": {
                    "map": {"praise": ["good", "great", "happy"], "blame": ["bad", "awful", "sad"]},
                    "tied": True,
                },
            },
        }
    )
    print(autoprompt.optimize(task, "toy", budget=2000, space=space))


if __name__ == "__main__":
    main()
