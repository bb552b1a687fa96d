"""The analytical prisoner's dilemma: Figures 3, 4, 9 and 10 of arXiv 2410.18636."""

from dataclasses import replace

from agents.learning_aware.analytic import DEFECTION_LOGIT, AnalyticSettings
from envs.social.analytic import CLASSIC_PAYOFFS
from internal_rl.config import RuntimeConfig
from internal_rl.social.config import AnalyticConfig

_ANALYTIC_SMOKE = AnalyticConfig(
    name="analytic-smoke",
    iterations=20,
    agents=AnalyticSettings(naive_updates=3, naive_starts=2),
    runtime=RuntimeConfig(log_every=10, checkpoint_every=20),
)
_FIG3A = AnalyticConfig(
    name="coala-fig3a",
    iterations=6000,
    agents=AnalyticSettings(num_meta=1, p_naive=1.0, start="defection"),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=1000),
)
_FIG3B = AnalyticConfig(
    name="coala-fig3b",
    iterations=2400,
    agents=AnalyticSettings(p_naive=0.0, naive_only_steps=600),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=600),
)
_FIG3C = AnalyticConfig(
    name="coala-fig3c",
    iterations=6000,
    agents=AnalyticSettings(p_naive=0.25),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=1000),
)
_FIG3C_META = replace(
    _FIG3C,
    name="coala-fig3c-meta-only",
    iterations=2000,
    agents=replace(_FIG3C.agents, p_naive=0.0),
)
# Neither p_naive nor the naive learners' start is given. Two readings leave mutual defection: steps in probabilities, as
# in the paper's argument about this start, with few naive learners; or naive learners that start near defection, too.
_FIG9 = replace(
    _FIG3C,
    name="coala-fig9",
    iterations=2000,
    agents=replace(_FIG3C.agents, p_naive=0.1, start="defection", space="probabilities"),
)
_FIG9_LOGITS = replace(
    _FIG3C,
    name="coala-fig9-logits",
    iterations=4000,
    agents=replace(_FIG3C.agents, p_naive=0.5, start="defection", naive_start_mean=DEFECTION_LOGIT),
)
_FIG10 = replace(_FIG9, name="coala-fig10", agents=replace(_FIG9.agents, start="tit_for_tat"))
# The game of older opponent-shaping work: LOLA (Foerster et al. 2018) and M-FOS take the plain sum and steps of 1.
_CLASSIC = AnalyticConfig(
    name="ipd-classic",
    iterations=1000,
    agents=AnalyticSettings(
        rule="lola_dice",
        naive_rate=1.0,
        payoffs=CLASSIC_PAYOFFS,
        discount=0.96,
        normalised=False,
    ),
    runtime=RuntimeConfig(log_every=50, checkpoint_every=500),
)
_LOLA_WEIGHTS = {1: 1.0, 2: 1.0, 3: 0.75, 10: 0.6, 20: 0.4}
"""Figure 4C: weight of the LOLA term by number of look-aheads."""


def _lola(look_aheads: int, weight: float, name: str) -> AnalyticConfig:
    # The paper takes η = 10 where the imagined learner makes one step.
    rate = 10.0 if look_aheads == 1 else 5.0
    return AnalyticConfig(
        name=name,
        agents=AnalyticSettings(
            rule="lola_dice", look_aheads=look_aheads, naive_rate=rate, lola_weight=weight
        ),
        # Not given in the paper. With 20 look-aheads, 6000 are too many: see `reproduce.py coala-fig4-length`.
        iterations=2000,
    )


_FIG4A = [_lola(n, 1.0, f"coala-fig4a-{n}") for n in _LOLA_WEIGHTS]
_FIG4C = [_lola(n, w, f"coala-fig4c-{n}") for n, w in _LOLA_WEIGHTS.items() if w < 1]

PRESETS = (
    *(_ANALYTIC_SMOKE, _FIG3A, _FIG3B, _FIG3C, _FIG3C_META, _FIG9, _FIG9_LOGITS, _FIG10),
    *(_CLASSIC, *_FIG4A, *_FIG4C),
)
