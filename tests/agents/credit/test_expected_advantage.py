"""What learned models believe on average, which every bias in decibels rests on, against all paths."""

import jax
import jax.numpy as jnp
import numpy as np

from agents.credit import METHODS, CreditConfig, WorldSpec, make_model
from agents.credit.features import features_init
from agents.credit.trajectory import from_paths
from envs.credit import KeyToDoor, enumerate_mdp, exact
from envs.credit.enumeration import enumerate_paths

ENV = KeyToDoor(length=5, ignore_door=True)
CASES = [
    *((method, {}) for method in METHODS),
    ("cocoa_reward", {"mask_zero_reward": False}),
    ("cocoa_reward", {"hindsight_loss": "contrastive"}),
    ("cocoa_reward", {"hindsight_loss": "successor"}),
]


def _wrong(path, x):
    """Twice the initial weights, so that models are far from 0; features stay what they are."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.float64) * (1 if "features" in jax.tree_util.keystr(path) else 2)


def test_expected_advantage_is_the_mean_table():
    """Untrained networks of float64, that is wrong models: Σ over paths and times in a state of their
    tables, without what is the same for all actions, is the expected advantage times its visits."""
    with jax.enable_x64(True):
        # Rewards whose sums float32 does not round, so that they lie on the lattice of returns.
        params = ENV.make_params(distractor=(0.25, 1.0), treasure=(0.5,))
        mdp = enumerate_mdp(ENV, params)
        logits = np.random.default_rng(0).normal(size=(mdp.num_states, 4))
        policy = jax.nn.softmax(jnp.asarray(logits))
        spec = WorldSpec(9, 4, ENV.reward_values(params))
        blank = features_init(jax.random.key(0), "gate", 9, 4, 128)
        models, states = [], []
        for method, changes in CASES:
            config = CreditConfig(method=method, hindsight_width=8, value_width=8, **changes)
            models.append(make_model(config, spec, None, blank))
            state = models[-1].init(jax.random.key(3))
            states.append(jax.tree_util.tree_map_with_path(_wrong, state))
        paths = enumerate_paths(mdp)
        assert len(paths.weight) == 1280
        batch = from_paths(mdp, paths, policy)

        def of(model, state, batch):
            tables = jax.vmap(lambda t: model.table(state, t, jax.random.key(0)))(batch)
            return tables, model.expected_advantage(state, mdp, policy)

        run = jax.jit(
            lambda states, batch: [of(*m, batch) for m in zip(models, states, strict=True)]
        )
        # Learned models are written for float32, in which they keep the list of rewards.
        with jax.numpy_dtype_promotion("standard"):
            found = run(states, batch)
        pi = np.asarray(policy)
        weight = np.asarray(paths.probability(policy))[:, None] * ~paths.done[:, :-1]
        here = paths.states[:, :-1]
        visits = np.asarray(exact.state_distributions(mdp, policy))[:, None]
        for (method, changes), (table, advantage) in zip(CASES, found, strict=True):
            centred = np.asarray(table) - (pi[here] * np.asarray(table)).sum(-1, keepdims=True)
            rows = np.zeros((mdp.num_states, 4))
            np.add.at(rows, here.reshape(-1), (weight[..., None] * centred).reshape(-1, 4))
            expected = np.asarray(advantage)
            expected = visits * (expected - (pi * expected).sum(1, keepdims=True))
            np.testing.assert_allclose(rows, expected, atol=1e-9, err_msg=f"{method} {changes}")
            assert np.abs(rows).max() > 0.01, method
