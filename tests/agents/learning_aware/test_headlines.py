"""What COALA's paper is about, in the smallest presets that show it."""

from dataclasses import replace

import jax
import numpy as np

from agents.learning_aware import analytic, population
from agents.learning_aware.optim import Optimizer
from configs import social as presets
from internal_rl.social.pipeline import parts

# conftest.py lets XLA compile fast and run slowly, which pays in short tests only.
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def metrics_of(update, start, steps, **options):
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, steps)[1], **options)
    return {name: np.asarray(value) for name, value in run(start).items()}


def test_coala_shapes_naive_learners_and_m_fos_does_not():
    """Fig. 5A with tables. Both train in one program, as rivals that never meet. Three seeds: 0.86-0.87 and 0.26."""
    config = presets.PRESETS["ipd-shaping-tabular"]
    pool = replace(config.pool, num_meta=2, estimator="coala,m_fos")
    game, policy, learner = parts(config)
    update = population.make_update(pool, game, policy, learner)
    start = population.init(pool, policy, learner, jax.random.key(0))
    metrics = metrics_of(update, start, config.iterations, compiler_options=OPTIMISED)
    assert metrics["naive/ego_reward_coala"][-20:].mean() >= 0.75
    assert metrics["naive/ego_reward_m_fos"][-20:].mean() <= 0.35


def test_metas_cooperate_only_where_there_are_naive_learners():
    """Fig. 3C at four times its learning rate: metas fall towards defection before they rise; alone they stay there.

    Four seeds of the mixed pool fall to 0.14-0.31 and are above 0.95 at step 500; the others are below 0.01.
    """

    def mutual(preset):
        cfg = replace(presets.PRESETS[preset].agents, optimizer=Optimizer("adamw", 0.02))
        start = analytic.init(cfg, jax.random.key(1))
        return metrics_of(analytic.make_update(cfg), start, 500)["meta/reward"]

    mixed, metas_only = mutual("coala-fig3c"), mutual("coala-fig3c-meta-only")
    np.testing.assert_allclose(mixed[0], metas_only[0], atol=1e-6)  # the same random start
    assert mixed[0] > 0.35
    assert mixed[:250].min() < 0.25
    assert mixed[-50:].min() > 0.9
    assert metas_only[-50:].max() < 0.05
