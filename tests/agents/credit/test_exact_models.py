"""Exact credit models: what their tables hold of a trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.credit import CreditConfig, WorldSpec, estimators, make_model
from agents.credit.exact_models import state_index
from envs.credit import exact
from tests.agents.credit.paths import trajectories
from tests.envs.credit.mdps import random_logits, random_mdp, softmax


@pytest.mark.parametrize("method", ["hca_return", "counterfactual_return"])
def test_exact_models_of_returns_look_up_each_return(method):
    """Against the nearest of all possible returns, also negative ones, at every step of every path; sums of
    tenths are not quite on the lattice."""
    with jax.enable_x64(True):
        mdp = random_mdp(0, levels=3)
        mdp = mdp.replace(reward_values=0.1 * np.asarray(mdp.reward_values))
        policy = jnp.asarray(softmax(random_logits(0, mdp)))
        batch, states, probability = trajectories(mdp, policy)
        D, A = mdp.observations.shape[1], mdp.num_actions
        spec = WorldSpec(obs_dim=D, num_actions=A, reward_values=tuple(mdp.reward_values))
        model = make_model(CreditConfig(method=method, model="exact"), spec, mdp)
        log_policy = lambda obs: jnp.log(policy)[state_index(mdp, obs)]  # noqa: E731
        state = model.init(jax.random.key(0))
        state, _ = model.update(state, None, log_policy, jax.random.key(1))
        found = jax.vmap(lambda t: model.table(state, t, jax.random.key(2)))(batch)

        support, units = exact.return_support(mdp)
        returns = exact.return_distribution(mdp, policy, support, units)
        z = np.asarray(jax.vmap(estimators.returns_to_go)(batch))
        nearest = np.abs(z[..., None] - support).argmin(-1)
        ratio = exact.contribution_ratio(returns, policy)[states, :, nearest]
        ratio = jnp.where(ratio > 0, ratio, 1.0)
        expected = jax.vmap(getattr(estimators, method))(batch, ratio)
        possible = np.asarray(probability) > 0
        np.testing.assert_allclose(found[possible], expected[possible], atol=1e-9)
        assert len(np.unique(nearest[possible])) > 3
