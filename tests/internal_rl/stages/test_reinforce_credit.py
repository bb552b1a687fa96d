"""Credit assignment over abstract steps: decisions as a plain loop sees them, one iteration, whole runs."""

import dataclasses
import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.credit import sampled
from internal_rl.commands import main as cli
from internal_rl.errors import UserError
from internal_rl.pipeline import _reinforce_rule, load_params
from internal_rl.runs.logger import read_metrics
from internal_rl.runs.run_dir import RunDir
from internal_rl.stages import reinforce, reinforce_credit
from internal_rl.validate import validate
from tests.internal_rl.killed import assert_survives_an_error
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    base_params,
    bind_base,
    bind_meta,
    bind_policy,
    changed,
    heldout,
    meta_params,
    models,
    policy_params,
)

DISTRACTOR = 0.25
WORLD = reinforce.training_world(
    heldout(), dataclasses.replace(SMOKE.reinforce, distractor_reward=DISTRACTOR)
)


def config_of(method, **changes):
    fields = {"batch_size": 24, "distractor_reward": DISTRACTOR, "credit": {"method": method}}
    fields["credit"] |= {"width": 8, "samples": 2, "model_steps": 2}
    return changed(SMOKE, reinforce=fields | changes)


@cache
def played():
    """Episodes of the first update of `config_of("reinforce")`, and π at every raw step."""
    cfg = config_of("reinforce").reinforce

    @jax.jit
    def play(key):
        policy = bind_policy(policy_params())
        episodes, _ = reinforce.internal_episodes(
            key, WORLD, bind_base(base_params()), bind_meta(meta_params()), policy, cfg
        )
        acted = episodes.decision.switch & episodes.alive
        return episodes, *policy(episodes.e, acted)

    # The keys of update 0 of a run whose key is 0.
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))[0]
    return play(jax.random.split(key, 3)[0])


@cache
def decisions(limit=SMOKE.env.horizon):
    @jax.jit
    def run(episodes):
        policy = bind_policy(policy_params())
        return reinforce_credit.decisions_of(episodes, policy, WORLD.reward_kinds, limit)

    return run(played()[0])


@pytest.mark.parametrize("limit", [SMOKE.env.horizon, 2])
def test_decisions_are_what_a_loop_over_steps_finds(limit):
    episodes, mean, log_std = jax.device_get(played())
    found, kinds = jax.device_get(decisions(limit)), WORLD.reward_kinds
    acted = np.asarray(episodes.decision.switch & episodes.alive)
    assert acted.sum(1).max() > 2
    reward = np.asarray(episodes.reward)
    assert {round(float(r), 4) for r in np.unique(reward)} >= {0.0, DISTRACTOR, 1.0}
    for b in range(len(acted)):
        steps = np.flatnonzero(acted[b])[:limit]
        np.testing.assert_array_equal(np.asarray(found.valid)[b], np.arange(limit) < len(steps))
        edges = [*steps, reward.shape[1]]
        for n, (start, end) in enumerate(itertools.pairwise(edges)):
            paid = reward[b, start:end]
            assert_close(found.reward[b, n], paid.sum())
            counts = [np.sum(np.abs(paid - kind) < 1e-3) for kind in kinds]
            np.testing.assert_array_equal(found.kind_count[b, n], counts)
            assert_close(found.kind_reward[b, n], np.array(counts) * np.array(kinds))
            np.testing.assert_array_equal(found.obs[b, n], episodes.e[b, start])
            np.testing.assert_array_equal(found.action[b, n], episodes.decision.z[b, start])
            assert_close(found.mean[b, n], mean[b, start])
            assert_close(found.log_std[b, n], log_std[b, start])
    # No reward is lost, not even after decisions that do not fit.
    assert_close(found.reward.sum(1), episodes.episode_return)


def test_one_iteration_follows_the_estimate():
    """With REINFORCE the gradient is that of −mean(log π(z_n) Z_n) / (std R + δ) over decisions."""
    config = config_of("reinforce")
    nets = models(config)
    init = partial(reinforce_credit.init, config.reinforce, nets, world=WORLD)
    state = jax.jit(init)(jax.random.key(0))
    state = dataclasses.replace(state, params=policy_params(), key=jax.random.key(0))
    frozen = reinforce.Frozen(base=base_params(), metacontroller=meta_params())
    update = reinforce_credit.make_update(config.reinforce, nets, WORLD)
    after, metrics = jax.jit(update)(state, frozen)
    assert abs(metrics["unseen_decisions"]) < 1e-6
    assert metrics["unmatched_rewards"] == 0
    episodes, _, _ = played()
    assert_close(metrics["return"], episodes.episode_return.mean())
    scale = np.std(episodes.episode_return) + config.reinforce.advantage_delta
    # Return to go at every raw step; only those of decisions count.
    to_go = jnp.flip(jnp.cumsum(jnp.flip(episodes.reward, 1), 1), 1)
    acted = episodes.decision.switch & episodes.alive
    weight = acted.astype(jnp.float32)

    @jax.jit
    def norm(params):
        def loss(params):
            log_prob = gaussian(episodes.decision.z, *bind_policy(params)(episodes.e, acted))
            return -jnp.sum(log_prob * to_go * weight) / jnp.sum(weight) / scale

        return optax.tree.norm(jax.grad(loss)(params))

    np.testing.assert_allclose(metrics["grad_norm"], norm(policy_params()), rtol=1e-3)
    assert any(
        (np.asarray(new) != np.asarray(old)).any()
        for new, old in zip(
            jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True
        )
    )


def gaussian(z, mean, log_std):
    terms = -0.5 * jnp.square((z - mean) * jnp.exp(-log_std)) - log_std - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.sum(terms, axis=-1)


def test_without_distractors_the_return_to_go_is_the_episode_return():
    """The held-out task pays once, at its end: REINFORCE then credits every code with the same number."""
    episodes, _, _ = played()
    d = decisions()
    count = d.kind_count[..., 0] + d.kind_count[..., 2]  # 1 and 1 + distractor
    plain = d.replace(reward=count)
    weights = jax.vmap(lambda d: sampled.reinforce(d, 1))(plain)
    wide = jnp.broadcast_to(episodes.success[:, None], d.valid.shape)
    np.testing.assert_array_equal(weights.taken, (wide & d.valid).astype(jnp.float32))


def test_cli_trains_evaluates_and_survives_an_error(runs, tmp_path):
    """`reinforce --credit NAME`, and `evaluate` finds the policy in its run."""
    words = ["reinforce", "--parent", str(runs.meta.path), "--credit", "cocoa_reward"]
    words += ["--reinforce.distractor-reward", "0.1", "--reinforce.credit.width", "8"]
    words += ["--reinforce.credit.samples", "2"]
    assert cli.main([*words, "--no-progress", "--run", str(tmp_path / "run")]) == 0
    run = RunDir(tmp_path / "run")
    assert run.config.reinforce.credit.method == "cocoa_reward"
    metrics = read_metrics(run)
    for name in ("success", "return", "credit_loss", "credit_loss_before", "unseen_decisions"):
        assert np.isfinite(metrics[name]).all(), name
    assert (metrics["unmatched_rewards"] == 0).all()
    assert jax.tree.structure(load_params(run)) == jax.tree.structure(policy_params())
    assert cli.main(["evaluate", "--run", str(run.path), "--evaluate.episodes", "8"]) == 0
    assert_survives_an_error(words, run, tmp_path / "killed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"credit": {"samples": 0}}, "reinforce.credit.samples is 0"),
        ({"distractor_reward": 1.5}, "reinforce.distractor_reward is 1.5"),
        (
            {"method": "raw_action", "credit": {"method": "cocoa_reward"}},
            "reinforce.credit.method is 'cocoa_reward'; allowed: 'trajectory' for raw actions",
        ),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UserError, match=message):
        validate(changed(SMOKE, reinforce=changes))


def test_which_stage_trains():
    """The default goes through `reinforce` itself."""
    assert SMOKE.reinforce.credit.method == "trajectory"
    assert _reinforce_rule(SMOKE) == (reinforce.init, reinforce.make_update)
    init, make_update = _reinforce_rule(config_of("cocoa_reward"))
    assert (init.func, make_update) == (reinforce_credit.init, reinforce_credit.make_update)
    assert init.keywords == {"world": WORLD}
