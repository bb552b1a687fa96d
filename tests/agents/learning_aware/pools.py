"""A small pool in a short prisoner's dilemma, and its training."""

import jax
import numpy as np

from agents.learning_aware import naive, population
from agents.learning_aware.objectives import ObjectiveSettings
from agents.learning_aware.optim import Optimizer
from agents.learning_aware.policies import tabular
from agents.learning_aware.population import PoolSettings
from envs.social.matrix import IteratedMatrixGame

GAME = IteratedMatrixGame(episode_length=3)
FAST = ObjectiveSettings("reinforce", Optimizer(learning_rate=0.1), centre="per_step")
POOL = PoolSettings(meta_episodes=2, batch=4, inner_episodes=2, objective=FAST)


def train(cfg, steps, policy=None, learner=None):
    policy = policy or tabular(5, 2)
    learner = learner or naive.frozen(tabular(5, 2, initial_logit=20.0))
    update = population.make_update(cfg, GAME, policy, learner)
    state = population.init(cfg, policy, learner, jax.random.key(0))
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: update(s), s, None, steps))
    state, metrics = run(state)
    return state, {name: np.asarray(values) for name, values in metrics.items()}
