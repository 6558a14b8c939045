"""Any function from text to text is a model: it is asked to continue the prompt, and its words are matched to the labels.

    python examples/own_model.py

Here the function is a rule; it could as well call a server. What it raises counts as a missing answer, never as wrong.
"""

import autoprompt


def reads_only_what_is_marked(prompt: str) -> str:
    """A stand-in for a model that needs to be told what the text is."""
    gloomy = any(word in prompt for word in ("not ", "cold", "rude", "dirty", "broken", "never"))
    return "negative" if gloomy or "Review:" not in prompt else "positive"


def main() -> None:
    """Search the bundled review task with a function as the model."""
    task = autoprompt.Task.load("reviews").with_sizes(train=20, select=40, test=100)
    result = autoprompt.optimize(task, reads_only_what_is_marked, budget=400, strategy="random_search")
    print(result)


if __name__ == "__main__":
    main()
