"""Embedded Bayesian agents (MUPI, arXiv 2511.22226), exact: no training, minutes on one core."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.learning_aware.equilibria import common_completion, is_subjective_equilibrium
from agents.learning_aware.mixture import (
    EmbeddedAgent,
    PolicyClass,
    copy_prior,
    decoupled,
    memory_one,
    open_loop,
    play,
)
from configs import social as presets
from envs.social.matrix import check_payoffs, payoffs_by_name
from internal_rl.social.config import EmbeddedConfig
from internal_rl.social.embedded import embedded_report
from reproductions.social_figures import write

# First cooperative round by prior weight of "the other is my copy": the spec's table, all open-loop sequences.
EXPECTED = {0.6: 0, 0.5: 1, 0.3: 2, 0.1: 4, 0.01: 7, 0.001: 10}
EXPECTED_HALF = {0.30: None, 1 / 3: None, 0.34: 6, 0.35: 4, 0.40: 2, 0.50: 1, 0.51: 0}


def twin(output: Path = Path("docs/results/mupi-twin")) -> None:
    """Twins in the prisoner's dilemma: when cooperation starts, against the arithmetic, and decoupled twins beside it.

    Args:
        output: path of the PNG and the JSON, without suffix.
    """
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows: dict[str, Any] = {}
    panels = (("mupi-twin", EXPECTED, left), ("mupi-half-defect", EXPECTED_HALF, middle))
    for name, expected, axes in panels:
        report = embedded_report(presets.get(name, EmbeddedConfig))
        found = {row["alpha"]: row["first_cooperation"] for row in report["rows"]}
        explicit = {
            row["alpha"]: row["embedded"].index("C") if "C" in row["embedded"] else None
            for row in report["rows"]
        }
        rows[name] = [
            {
                "alpha": row["alpha"],
                "expected": expected[row["alpha"]],
                "closed form": found[row["alpha"]],
                "explicit mixture": explicit[row["alpha"]],
                "embedded": row["embedded"],
                "decoupled": row["decoupled"],
            }
            for row in report["rows"]
        ]
        never = presets.get(name, EmbeddedConfig).rounds
        for label, values, mark in (
            ("expected", expected, "o"),
            ("closed form", found, "x"),
            (f"explicit mixture, {report['explicit_rounds']} rounds", explicit, "+"),
        ):
            # The explicit mixture says nothing where cooperation starts after its last round.
            known = [a for a in values if label in ("expected", "closed form") or found[a] is None]
            known += [a for a, v in values.items() if v is not None and a not in known]
            y = [never if values[a] is None else values[a] for a in known]
            size = 9 if mark == "o" else 7
            axes.plot(known, y, mark, markersize=size, fillstyle="none", label=label)
        axes.axhline(never, color="0.3", linestyle=":", linewidth=1)
        text = "not within the rounds played"
        axes.text(0.98, never, text, va="bottom", ha="right", transform=axes.get_yaxis_transform())
        axes.set(xlabel="prior weight α of a copy", title=name)
        axes.set_ylabel("first cooperative round")
        if name == "mupi-twin":
            axes.set_xscale("log")
            for row in report["rows"]:
                x = range(len(row["predictive_similarity"]))
                right.plot(x, row["predictive_similarity"], ".-", label=f"α = {row['alpha']:g}")
    right.axhline(0.5, color="0.3", linestyle="--", linewidth=1)
    right.set(xlabel="round", ylabel="p(c|C) − p(c|D)", title="predictive similarity")
    write(figure, output, rows)


def games(output: Path = Path("docs/results/mupi-games")) -> None:
    """Smallest α at which twins cooperate in round 0 and in round 3, by game; equilibrium checks.

    Args:
        output: path of the PNG and the JSON, without suffix.
    """
    names = ("prisoners_dilemma", "twin_dilemma", "stag_hunt", "chicken", "anti_coordination")
    rows: dict[str, Any] = {}
    for name in names:
        base = replace(presets.get("mupi-twin", EmbeddedConfig), game=name, rounds=4)
        own: dict[str, Any] = {}
        for round_ in (0, 3):
            own[f"embedded, round {round_}"] = _threshold(base, round_, "embedded")
            own[f"decoupled, round {round_}"] = _threshold(base, round_, "decoupled")
        rows[name] = own
    payoffs = check_payoffs(payoffs_by_name("twin_dilemma"))
    copies = np.eye(2)
    always_c = np.array([[1.0, 0.0], [1.0, 0.0]])
    rows["one-shot twins"] = {
        "(C, C) is a subjective embedded equilibrium": is_subjective_equilibrium(
            payoffs, (0, 0), (copies, copies)
        ),
        "one joint distribution supports it": common_completion(payoffs, (0, 0)) is not None,
        "(C, C) with independent beliefs": is_subjective_equilibrium(
            payoffs, (0, 0), (always_c, always_c)
        ),
    }
    three = check_payoffs(payoffs_by_name("subjective_only"))
    beliefs = (np.eye(3)[[0, 2, 1]], np.eye(3)[[0, 1, 2]])
    rows["3 x 3 game"] = {
        "(A, A) is a subjective embedded equilibrium": is_subjective_equilibrium(
            three, (0, 0), beliefs
        ),
        "one joint distribution supports it": common_completion(three, (0, 0)) is not None,
    }
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots()
    for i, label in enumerate(rows[names[0]]):
        x = np.arange(len(names)) + 0.2 * (i - 1.5)
        values = [rows[name][label] for name in names]
        axes.bar(x, [v or 0.0 for v in values], 0.18, color=f"C{i}", label=label)
        for at, value in zip(x, values, strict=True):
            if value is None:
                _mark_none(axes, at, 0.18, f"C{i}")
            elif value == 0:
                axes.text(at, 0.01, "0", ha="center")
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axes.set(
        ylabel="smallest α that cooperates",
        title="How sure of a copy (prior weight α) twins must be to cooperate; hatched: no α suffices",
        ylim=(0, 1.02),
    )
    axes.title.set_fontsize("medium")
    handles = axes.get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside right center", fontsize="small")
    write(figure, output, rows, legend=False)


def planning(
    horizon: int = 4, discount: float = 0.9, output: Path = Path("docs/results/mupi-planning")
) -> None:
    """Smallest α at which a k-step planner cooperates first, by depth k, in the repeated twin dilemma.

    Args:
        horizon: rounds that are valued in all.
        discount: γ.
        output: path of the PNG and the JSON, without suffix.
    """
    payoff = check_payoffs(payoffs_by_name("twin_dilemma"))[0]
    classes = {"open-loop sequences": open_loop(horizon), "memory-1, ε 0.001": memory_one(1e-3)}
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    rows: dict[str, Any] = {}
    depths = list(range(1, horizon + 1))
    for i, (name, policies) in enumerate(classes.items()):
        for coupled in (True, False):
            label = f"{name}, {'embedded' if coupled else 'decoupled'}"
            values = [
                _planning_threshold(policies, payoff, discount, k, horizon, coupled) for k in depths
            ]
            rows[label] = dict(zip(map(str, depths), values, strict=True))
            y = [1.05 + 0.05 * i if v is None else v for v in values]
            style = "-" if coupled else "--"
            axes.plot(depths, y, f"o{style}", color=f"C{i}", label=label)
    axes.axhspan(1.0, 1.22, facecolor="none", edgecolor="0.8", hatch="///", linewidth=0)
    axes.text(depths[0], 1.16, "no α cooperates", va="center", backgroundcolor="white")
    axes.set_xticks(depths)
    axes.set(xlabel="planning depth k", ylabel="smallest α at which twins cooperate first")
    axes.set_ylim(0, 1.22)
    axes.set_yticks(np.linspace(0, 1, 6))
    write(figure, output, rows)


SUBCOMMANDS = {"mupi-twin": twin, "mupi-games": games, "mupi-planning": planning}


def _mark_none(axes: Axes, x: float, width: float, colour: str) -> None:
    """A hatched column that nobody takes for a value of 1."""
    axes.bar(
        x, 1.0, width, facecolor="none", edgecolor=colour, hatch="////", linewidth=0, alpha=0.35
    )
    axes.text(x, 0.5, "none", rotation=90, ha="center", va="center", fontsize="small")


def _threshold(config: EmbeddedConfig, round_: int, kind: str) -> float | None:
    """By bisection on α to 1e-4: the smallest α at which this round is cooperative; None if none is."""

    def cooperates(alpha: float) -> bool:
        payoff = check_payoffs(payoffs_by_name(config.game))[0]
        belief = copy_prior(open_loop(config.rounds), alpha)
        agent = EmbeddedAgent(belief if kind == "embedded" else decoupled(belief), payoff)
        return play(agent, agent, round_ + 1)[round_] == (0, 0)

    return _bisect(cooperates)


def _planning_threshold(
    policies: PolicyClass,
    payoff: np.ndarray,
    discount: float,
    depth: int,
    horizon: int,
    coupled: bool,
) -> float | None:
    def cooperates(alpha: float) -> bool:
        belief = copy_prior(policies, alpha)
        if not coupled:
            belief = decoupled(belief)
        return EmbeddedAgent(belief, payoff, discount, depth, horizon).act() == 0

    return _bisect(cooperates)


def _bisect(cooperates: Any) -> float | None:
    if not cooperates(1 - 1e-9):
        return None
    if cooperates(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if cooperates(middle) else (middle, high)
    return high
