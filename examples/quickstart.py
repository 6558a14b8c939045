"""The shortest use: search for a better prompt, read the report, save the prompt.

python examples/quickstart.py
"""

import autoprompt


def main() -> None:
    """Optimize the prompt of the bundled review task for the bundled causal model."""
    result = autoprompt.optimize("reviews", "bundled:causal", budget=4000)
    print(result)
    for path in result.save("best_prompt.txt"):
        print("wrote", path)


if __name__ == "__main__":
    main()
