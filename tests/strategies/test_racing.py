"""Racing: fewer calls for the same result, complete winners, an error rate that holds, missing answers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from autoprompt.asks import Answer, Ask, Floats, Score, Scored, scored_pairs
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.comparing.evidence import signed_rank_p
from autoprompt.strategies.racing import Racing, stratified_order
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE
from autoprompt.task import Example
from autoprompt.testing import check_strategy, planted, run

METHODS = ("evalue", "wilcoxon", "halving")
SPACE = planted(seed=0, slots=1, options=2, n_examples=8).space


@dataclass(kw_only=True)
class Fixed(Strategy):
    """Asks once about given prompts and remembers what it was told."""

    prompts: tuple[Prompt, ...]
    told: list[Scored] = field(init=False, repr=False, compare=False)
    extra: list[Score] = field(init=False, repr=False, compare=False, default_factory=list)

    def begin(self, setting: Setting) -> None:
        self.told = []
        self._waiting = [Score(prompt, setting.select) for prompt in self.prompts] + self.extra

    def ask(self) -> list[Score]:
        asks, self._waiting = self._waiting, []
        return asks

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        self.told += [answer for _, answer in scored_pairs(asks, answers)]


def examples_of(targets: Sequence[str]) -> tuple[Example, ...]:
    return tuple(Example({"text": str(place)}, target) for place, target in enumerate(targets))


def race(
    racing: Racing,
    table: dict[str, Floats],
    examples: tuple[Example, ...],
    seed: int = 0,
    losses: Floats | None = None,
) -> tuple[list[Score], int]:
    """Race against the prompt ``seed`` on a table of scores; return all asks and the calls they cost.

    ``losses``: of all prompts; one less the score where not given.
    """
    places = {example.id: place for place, example in enumerate(examples)}

    def answer(ask: Score) -> Scored:
        columns = [places[example.id] for example in ask.examples]
        scores = table[ask.prompt.text][columns]
        return Scored(scores, 1 - scores if losses is None else losses[columns], ("x",) * len(scores))

    start = Prompt("seed")
    rng = np.random.default_rng(seed)
    racing.begin(Setting(SPACE, start, answer(Score(start, examples)), (), examples, rng))
    asked: list[Score] = []
    charged: set[tuple[str, str]] = set()
    while asks := [ask for ask in racing.ask() if isinstance(ask, Score)]:
        asked += asks
        charged |= {(ask.prompt.key, example.id) for ask in asks for example in ask.examples}
        racing.tell(asks, [answer(ask) for ask in asks])
    return asked, len(charged)


@pytest.mark.parametrize("method", METHODS)
def test_keeps_the_contract(method: str) -> None:
    check_strategy(lambda: Racing(inner=RandomSearch(), method=method, block=6))  # type: ignore[arg-type]


def test_keeps_the_contract_with_what_it_wraps_by_default() -> None:
    check_strategy(lambda: Racing(inner=TPE(startup=4, redraws=5)))


def test_beats_the_same_strategy_without_racing_at_equal_calls() -> None:
    gains = []
    for seed in range(10):
        task = planted(seed=seed, slots=5, options=4, n_examples=128)
        strategies = (Racing(inner=RandomSearch()), RandomSearch())
        found = [run(strategy, task, 128 * 80, seed)[-1].accuracy for strategy in strategies]
        gains.append(found[0] - found[1])
    assert statistics.mean(gains) > 0.005


def test_reaches_what_the_inner_strategy_reaches_with_fewer_calls() -> None:
    saved, lost = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        examples = examples_of(["a", "b"] * 64)
        table = {"seed": (rng.random(128) < 0.7).astype(float)}
        for index in range(16):
            table[f"p{index}"] = (rng.random(128) < rng.uniform(0.4, 0.9)).astype(float)
        inner = Fixed(prompts=tuple(Prompt(name) for name in table if name != "seed"))
        asked, calls = race(Racing(inner=inner), table, examples, seed)
        complete = {ask.prompt.text for ask in asked if len(ask.examples) == 128} | {"seed"}
        best = max(table, key=lambda name: table[name].mean())
        lost.append(table[best].mean() - max(table[name].mean() for name in complete))
        saved.append(1 - calls / (16 * 128))
    assert statistics.mean(saved) > 0.35
    assert statistics.mean(lost) < 0.005


def share_lost(method: str, stratified: bool) -> float:
    """How often a prompt as good as the incumbent, in truth and over all N examples, is not completed.

    ``stratified``: the two differ in opposite ways on the two targets, which is the hard case for strata.
    """
    rng = np.random.default_rng(1)
    examples = examples_of(["a", "b"] * 60)
    chances = np.array([0.9, 0.4] * 60) if stratified else np.full(120, 0.65)
    lost, good = 0, 0
    for seed in range(300):
        table = {
            "seed": (rng.random(120) < chances).astype(float),
            "same": (rng.random(120) < (1.3 - chances)).astype(float),
        }
        if table["same"].mean() < table["seed"].mean():
            continue
        inner = Fixed(prompts=(Prompt("same"),))
        race(Racing(inner=inner, method=method), table, examples, seed)  # type: ignore[arg-type]
        good += 1
        lost += inner.told[0].imputed > 0
    return lost / good


@pytest.mark.parametrize("stratified", [True, False])
def test_a_prompt_as_good_as_the_incumbent_is_lost_with_probability_alpha_at_most(stratified: bool) -> None:
    assert share_lost("evalue", stratified) <= 0.1


def test_repeated_looks_cost_the_wilcoxon_test_its_level() -> None:
    assert share_lost("wilcoxon", stratified=False) > 0.1


def test_every_wave_has_an_order_of_its_own() -> None:
    """Else the incumbent, which an earlier order let through, would not be independent of the order it is met in."""
    examples = examples_of(["a", "b"] * 32)
    table = {name: np.full(64, 0.5) for name in ("seed", "one", "two", "three")}
    prompts = (Prompt("one"), Prompt("two"), Prompt("three"))
    asked, _ = race(Racing(inner=Fixed(prompts=prompts), wave=2), table, examples)
    first = {ask.prompt.text: ask.examples for ask in reversed(asked) if ask.note == "block 1"}
    assert first["one"] == first["two"] != first["three"]


def test_what_is_known_of_the_examples_saves_calls() -> None:
    """Where losses tell hard examples from easy ones, less of the differences is noise."""
    rng = np.random.default_rng(3)
    examples = examples_of(["a", "b"] * 64)
    hard = rng.random(128)
    chances = {"seed": 0.75, **{f"p{index}": 0.6 for index in range(12)}}
    drawn = {name: np.where(rng.random(128) < 0.85, hard, rng.random(128)) for name in chances}
    table = {name: (drawn[name] < chance).astype(float) for name, chance in chances.items()}
    spent = []
    for losses in (-np.log(1 - 0.95 * hard), np.full(128, np.nan)):
        calls = 0
        for seed in range(8):
            inner = Fixed(prompts=tuple(Prompt(name) for name in table if name != "seed"))
            calls += race(Racing(inner=inner), table, examples, seed, losses)[1]
        spent.append(calls)
    assert spent[0] < 0.9 * spent[1]


def test_a_margin_drops_what_is_no_better() -> None:
    examples = examples_of(["a", "b"] * 32)
    rng = np.random.default_rng(0)
    table = {"seed": (rng.random(64) < 0.7).astype(float), "same": (rng.random(64) < 0.7).astype(float)}
    spent = [
        race(Racing(inner=Fixed(prompts=(Prompt("same"),)), margin=margin), table, examples)[1]
        for margin in (0.0, 0.2)
    ]
    assert spent[1] < spent[0]


def test_a_better_prompt_is_hardly_ever_lost() -> None:
    rng = np.random.default_rng(2)
    examples = examples_of(["a", "b"] * 60)
    lost = 0
    for seed in range(200):
        table = {"seed": (rng.random(120) < 0.6).astype(float), "up": (rng.random(120) < 0.7).astype(float)}
        asked, _ = race(Racing(inner=Fixed(prompts=(Prompt("up"),))), table, examples, seed)
        lost += len(asked[-1].examples) < 120
    assert lost / 200 < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_all_candidates_meet_the_same_blocks_and_the_best_is_complete(method: str) -> None:
    examples = examples_of(["a", "a", "b", "b"] * 16)
    rng = np.random.default_rng(0)
    table = {f"p{index}": (rng.random(64) < 0.3 + 0.05 * index).astype(float) for index in range(8)}
    table |= {"seed": (rng.random(64) < 0.3).astype(float), "top": np.ones(64)}
    inner = Fixed(prompts=tuple(Prompt(name) for name in table if name != "seed"))
    racing = Racing(inner=inner, method=method, wave=9)  # type: ignore[arg-type]
    asked, calls = race(racing, table, examples)
    blocks: dict[str, list[tuple[Example, ...]]] = {}
    for ask in asked:
        blocks.setdefault(ask.prompt.text, []).append(ask.examples)
    longest = blocks["top"]
    assert longest[-1] == examples
    assert all(parts == longest[: len(parts)] for parts in blocks.values())
    assert calls < 9 * 64
    assert [scored.imputed for scored in inner.told][-1] == 0


def test_the_inner_strategy_is_told_full_length_answers() -> None:
    examples = examples_of(["a", "b"] * 40)
    seed = np.array([1.0, 1.0, 1.0, 0.0] * 20)
    table = {"seed": seed, "bad": np.zeros(80), "top": np.ones(80)}
    inner = Fixed(prompts=(Prompt("bad"), Prompt("top")))
    asked, _ = race(Racing(inner=inner, block=16), table, examples)
    bad, top = inner.told
    met = sum(len(ask.examples) for ask in asked if ask.prompt.text == "bad")
    assert len(bad.scores) == len(top.scores) == 80
    assert bad.imputed == 80 - met > 0
    assert bad.score == 0  # it was wrong wherever it was measured
    assert (top.imputed, top.score) == (0, 1.0)


def test_a_candidate_in_between_is_filled_in_by_its_ratio_to_the_incumbent() -> None:
    examples = examples_of(["a"] * 100)
    rng = np.random.default_rng(5)
    table = {"seed": np.ones(100), "half": (rng.random(100) < 0.5).astype(float)}
    inner = Fixed(prompts=(Prompt("half"),))
    race(Racing(inner=inner, block=20), table, examples)
    (half,) = inner.told
    assert half.imputed > 0
    measured = half.scores[np.isin(half.scores, (0.0, 1.0))]
    assert half.score == pytest.approx(measured.mean())
    assert half.losses.min() >= 0


def test_the_next_incumbent_is_the_best_complete_prompt() -> None:
    examples = examples_of(["a", "b"] * 32)
    rng = np.random.default_rng(0)
    seed = (rng.random(64) < 0.2).astype(float)
    table = {"seed": seed, "top": np.ones(64), "mid": np.repeat([1.0, 0.0], [40, 24])}

    @dataclass(kw_only=True)
    class TwoRounds(Fixed):
        def ask(self) -> list[Score]:
            return [self._waiting.pop(0)] if self._waiting else []

    for names, complete in ((("top", "mid"), False), (("mid", "top"), True)):
        inner = TwoRounds(prompts=tuple(Prompt(name) for name in names))
        asked, _ = race(Racing(inner=inner), table, examples)
        assert any(ask.prompt.text == "mid" and len(ask.examples) == 64 for ask in asked) == complete


@pytest.mark.parametrize("method", ["evalue", "wilcoxon"])
def test_missing_answers_never_eliminate(method: str) -> None:
    examples = examples_of(["a", "b"] * 32)
    gone = np.full(64, np.nan)
    patchy = np.ones(64)
    patchy[::3] = np.nan
    table = {"seed": np.full(64, 0.5), "gone": gone, "patchy": patchy}
    inner = Fixed(prompts=(Prompt("gone"), Prompt("patchy")))
    racing = Racing(inner=inner, method=method)  # type: ignore[arg-type]
    race(racing, table, examples)
    assert [scored.imputed for scored in inner.told] == [0, 0]
    assert [scored.missing for scored in inner.told] == [64, 22]


def test_what_is_hopeless_is_dropped_even_when_the_test_cannot_tell() -> None:
    examples = examples_of(["a", "b"] * 32)
    worse = np.ones(64)
    worse[0] = 0.0
    table = {"seed": np.ones(64), "worse": worse}
    lengths = []
    for seed in range(10):
        _, calls = race(Racing(inner=Fixed(prompts=(Prompt("worse"),))), table, examples, seed)
        lengths.append(calls)
    assert min(lengths) < 64  # one wrong answer is enough where the incumbent has none


def test_other_questions_pass_through() -> None:
    examples = examples_of(["a", "b"] * 32)
    table = {"seed": np.zeros(64), "top": np.ones(64)}
    extra = [Score(Prompt("top"), examples[:3]), Score(Prompt("top"), examples, repeat=1)]
    inner = Fixed(prompts=(Prompt("top"),))
    inner.extra = extra
    asked, _ = race(Racing(inner=inner), table, examples)
    assert [len(scored.scores) for scored in inner.told] == [64, 3, 64]
    assert sum(ask.repeat for ask in asked) == 1


def test_order_is_a_permutation_with_balanced_stretches() -> None:
    targets = ["rare"] * 10 + ["common"] * 90
    order = stratified_order(examples_of(targets), np.random.default_rng(0))
    assert sorted(order) == list(range(100))
    for start in range(0, 100, 20):
        rare = sum(targets[index] == "rare" for index in order[start : start + 20])
        assert 1 <= rare <= 3
    assert order != stratified_order(examples_of(targets), np.random.default_rng(1))


def test_signed_rank_p_agrees_with_scipy() -> None:
    from scipy.stats import wilcoxon

    rng = np.random.default_rng(0)
    for shift in (-0.2, 0.0, 0.3):
        differences = rng.choice([-1.0, -0.5, 0.5, 1.0], size=60) + shift
        expected = wilcoxon(differences, alternative="less", correction=False, method="approx").pvalue
        assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)
    assert signed_rank_p(np.zeros(5)) == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "evalu"}, "did you mean 'evalue'"),
        ({"alpha": 1.0}, "alpha must be between 0 and 1"),
        ({"margin": -0.1}, "margin must be at least 0"),
        ({"block": 0}, "block must be at least 1"),
        ({"eta": 1}, "eta must be at least 2"),
        ({"wave": 0}, "wave must be at least 1"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Racing(**fields)  # type: ignore[arg-type]
