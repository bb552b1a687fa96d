"""Embedded Bayesian twins, exactly: what they play, what they believe, and the closed form beside it."""

from typing import Any

from agents.learning_aware.mixture import (
    EmbeddedAgent,
    copy_prior,
    coupling,
    decoupled,
    open_loop,
    play,
    predict_other,
)
from agents.learning_aware.sequences import twin_schedule
from internal_rl.social.build import embedded_payoffs, validate_embedded
from internal_rl.social.config import EmbeddedConfig

BRUTE_FORCE_ROUNDS = 9
"""Longest explicit mixture: 4^9 pairs of sequences. Longer games are answered by the closed form alone."""


def embedded_report(config: EmbeddedConfig) -> dict[str, Any]:
    """Per α: joint play of embedded and of decoupled twins, beliefs, first cooperative round.

    The mixture over explicit universes is played for min(rounds, 9) rounds, the closed form for all of them. Raises
    `UserError` for an impossible config.
    """
    validate_embedded(config)
    payoff = embedded_payoffs(config)[0]
    numbers = (
        float(payoff[0, 0]),
        float(payoff[0, 1]),
        float(payoff[1, 0]),
        float(payoff[1, 1]),
    )
    rounds = min(config.rounds, BRUTE_FORCE_ROUNDS)
    policies = open_loop(rounds, 0.5 if config.policies == "half_defect" else 0.0)
    rows = []
    for alpha in config.alphas:
        prior = copy_prior(policies, alpha)
        agent = EmbeddedAgent(prior, payoff)
        embedded = play(agent, agent, rounds)
        apart = EmbeddedAgent(decoupled(prior), payoff)
        schedule = twin_schedule(alpha, config.rounds, numbers, config.policies)
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
                "closed_form": "".join("CD"[a] for a in schedule),
                "first_cooperation": schedule.index(0) if 0 in schedule else None,
                "predictive_similarity": similarity,
                "prior_coupling_nats": coupling(prior),
            }
        )
    return {"config": config.name, "game": config.game, "explicit_rounds": rounds, "rows": rows}


def _letters(history: list[tuple[int, int]]) -> str:
    """One letter per round; both twins play it, or the pair of letters where they differ."""
    return "".join("CD"[a] if a == b else f"({'CD'[a]}{'CD'[b]})" for a, b in history)
