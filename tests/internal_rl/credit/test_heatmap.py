"""Contributions by context in task interleaving (spec 5.2), against sums pair by pair."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.credit.train import MEASUREMENT, TrainState, make_init
from agents.credit.trajectory import rollouts
from configs import credit as presets
from envs.credit import exact
from internal_rl.credit.config import InterleavingConfig, WorldConfig
from internal_rl.credit.heatmap import contribution_map, run_map
from internal_rl.credit.run import build_model, build_policy, last_state, run_train
from internal_rl.credit.world import build_world
from internal_rl.errors import UserError

HORIZON = 45  # cuts 0.9 % of the episodes
WORLD = WorldConfig(
    kind="interleaving",
    interleaving=InterleavingConfig(contexts=3, max_open=2, objects=1, horizon=HORIZON, death=0.1),
)
EPISODES = 8


def config_of(method, model):
    config = replace(presets.get("cocoa-smoke", method, model), world=WORLD)
    if model == "learned":  # needs no tables, so episodes may be cut
        short = replace(WORLD.interleaving, horizon=12)
        config = replace(config, world=replace(WORLD, interleaving=short))
    return replace(config, train=replace(config.train, batches=10))


@pytest.mark.parametrize("method", ["cocoa_reward", "hca_plus", "hca"])
def test_exact_map(method):
    """Coefficients alone: neither original HCA's model of immediate rewards nor sampled actions."""
    config = config_of(method, "exact")
    samples = 3 if method == "hca" else 0
    config = replace(config, credit=replace(config.credit, action_samples=samples))
    built = build_world(config.world)
    policy, model = build_policy(config, built), build_model(config.credit, built)
    state = make_init(config.train, policy, model, 0.0)(jax.random.key(3))
    found = contribution_map(config, state, EPISODES, refresh=True)

    mdp, acting = built.mdp, policy.acting(state.policy[0], config.train.epsilon)
    pi = np.asarray(jnp.exp(acting(jnp.asarray(mdp.observations, jnp.float32))))
    encoding = exact.reward_encoding(mdp) if method == "cocoa_reward" else exact.state_encoding(mdp)
    table = jnp.asarray(pi)
    mdp32 = mdp.astype(jnp.float32)
    ratio = jax.jit(
        lambda pi: exact.contribution_ratio(exact.outcome_counts(mdp32, pi, encoding), pi)
    )
    w = np.asarray(ratio(table)) - 1.0
    rows = {
        np.round(o, 4).tobytes(): i for i, o in enumerate(np.asarray(mdp.observations, np.float32))
    }
    total, count = np.zeros((3, 3)), np.zeros((3, 3))
    play = jax.jit(
        lambda key: rollouts(built.world.env, built.world.params, acting, key, HORIZON, 1)[0]
    )
    for key in jax.random.split(jax.random.fold_in(state.key, MEASUREMENT), EPISODES):
        episode = play(key)
        obs, reward = np.asarray(episode.obs[0]), np.asarray(episode.reward[0])
        done = np.asarray(episode.done[0])
        for t in range(HORIZON):
            for later in range(t + 1, HORIZON):
                if done[t] or obs[t, 3] or reward[later] <= 0:
                    continue
                s = rows[np.round(obs[t], 4).tobytes()]
                if method == "cocoa_reward":
                    u = np.abs(np.asarray(mdp.reward_values) - reward[later]).argmin()
                else:
                    u = rows[np.round(obs[later], 4).tobytes()]
                i, j = obs[t, :3].argmax(), obs[later, :3].argmax()
                total[i, j] += np.sum(pi[s] * np.abs(w[s, :, u]))
                count[i, j] += 1
    mean = total / np.maximum(count, 1)
    np.testing.assert_allclose(found, mean / mean.sum(1, keepdims=True), atol=1e-4)
    if method == "cocoa_reward":
        # A reward says whose answer it is, and only its query brings it about; what little is left
        # comes from a policy that sees the keys of other contexts.
        np.testing.assert_allclose(found, np.eye(3), atol=0.01)
    else:
        assert np.trace(found) < 2.9


def test_map_of_a_run(tmp_path):
    seeds = 2
    run = run_train(
        config_of("cocoa_reward", "learned"), tmp_path / "r", seeds=seeds, progress=False
    )
    assert last_state(run).step.tolist() == [10] * seeds
    found = run_map(run, EPISODES)
    assert found.shape == (seeds, 3, 3)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)


def test_other_worlds_are_refused():
    config = presets.get("cocoa-smoke", "cocoa_reward")
    with pytest.raises(UserError, match=r"world\.kind is 'key_to_door'"):
        contribution_map(config, object.__new__(TrainState))
