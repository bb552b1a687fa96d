"""Embedded Bayesian twins, exactly: what they play, what they believe, and the closed form beside it."""

from typing import Any

from agents.learning_aware.mixture import (
    EmbeddedAgent,
    PolicyClass,
    copy_prior,
    coupling,
    decoupled,
    memory_one,
    open_loop,
    play,
    predict_other,
)
from agents.learning_aware.sequences import twin_schedule
from internal_rl.social.build import embedded_payoffs, validate_embedded
from internal_rl.social.config import EmbeddedConfig

BRUTE_FORCE_ROUNDS = 9
"""Longest explicit sequences: 4^9 pairs of them. Longer games are answered by the closed form alone."""
PLANNED_ROUNDS = 7
"""The same for planners, who update these beliefs at every node of a tree; what they look ahead counts."""


def embedded_report(config: EmbeddedConfig) -> dict[str, Any]:
    """Per α: joint play of embedded, decoupled and causal twins, beliefs, first cooperative round.

    The mixture over explicit universes is played for `explicit_rounds`: of sequences min(rounds, 9), less with a longer
    horizon. The closed form is for all rounds, and None where there is none. Raises `UserError` for an impossible config.
    """
    validate_embedded(config)
    payoff = embedded_payoffs(config)[0]
    numbers = (
        float(payoff[0, 0]),
        float(payoff[0, 1]),
        float(payoff[1, 0]),
        float(payoff[1, 1]),
    )
    policies, rounds = _policies(config)
    plan = (payoff, config.discount, config.depth, config.horizon)
    rows = []
    for alpha in config.alphas:
        prior = copy_prior(policies, alpha)
        agent = EmbeddedAgent(prior, *plan)
        embedded = play(agent, agent, rounds)
        apart = EmbeddedAgent(decoupled(prior), *plan)
        causal = EmbeddedAgent(prior, *plan, causal=True)
        schedule = _closed_form(config, alpha, numbers)
        known = embedded if schedule is None else [(a, a) for a in schedule]
        similarity = []
        for own, other in embedded:
            similarity.append(
                float(predict_other(agent.belief, 0)[0] - predict_other(agent.belief, 1)[0])
            )
            agent = agent.after(own, other)
        rows.append(
            {
                "alpha": alpha,
                "embedded": _letters(embedded),
                "decoupled": _letters(play(apart, apart, rounds)),
                "causal": _letters(play(causal, causal, rounds)),
                "closed_form": None if schedule is None else "".join("CD"[a] for a in schedule),
                "first_cooperation": known.index((0, 0)) if (0, 0) in known else None,
                "predictive_similarity": similarity,
                "prior_coupling_nats": coupling(prior),
            }
        )
    return {"config": config.name, "game": config.game, "explicit_rounds": rounds, "rows": rows}


def _policies(config: EmbeddedConfig) -> tuple[PolicyClass, int]:
    """The class, and for how many rounds its mixture is played."""
    if config.policies == "memory_one":
        return memory_one(config.tremble), config.rounds
    # In its last round, too, an agent looks ahead at sequences that can go on either way.
    ahead = config.horizon - 1
    rounds = min(config.rounds, (PLANNED_ROUNDS if ahead else BRUTE_FORCE_ROUNDS) - ahead)
    return open_loop(rounds + ahead, 0.5 if config.policies == "half_defect" else 0.0), rounds


def _closed_form(
    config: EmbeddedConfig, alpha: float, numbers: tuple[float, float, float, float]
) -> list[int] | None:
    """Actions by round, if the arithmetic of the present round decides.

    Among uniform sequences it does for planners, too: both actions are equally likely to be matched, and what is to come
    depends on the match alone. Always-defect breaks this, for defecting keeps its mass in play.
    """
    if config.policies == "memory_one" or (config.policies == "half_defect" and config.horizon > 1):
        return None
    return twin_schedule(alpha, config.rounds, numbers, config.policies)


def _letters(history: list[tuple[int, int]]) -> str:
    """One letter per round; both twins play it, or the pair of letters where they differ."""
    return "".join("CD"[a] if a == b else f"({'CD'[a]}{'CD'[b]})" for a, b in history)
