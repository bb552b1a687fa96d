"""Learned and exact coefficients of a run, against all trajectories of a small world."""

import json
from collections import defaultdict
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.credit.features import features
from agents.credit.train import make_init
from agents.credit.trajectory import from_paths
from configs import credit as presets
from envs.credit.enumeration import enumerate_paths
from internal_rl.credit import cli
from internal_rl.credit.inspection import inspect_run
from internal_rl.credit.run import SHADOW, TRAIN, build_model, build_policy, last_state
from internal_rl.credit.world import build_world, shadow_credits
from internal_rl.errors import UserError
from internal_rl.runs import run_dir
from internal_rl.runs.checkpoint import Checkpoints

METHODS = ("cocoa_reward", "cocoa_feature", "hca_plus")


def config_of(method, model="learned", **door):
    config = presets.get("cocoa-smoke", method, model)
    door = replace(config.world.key_to_door, length=5, **door)
    shadow = replace(config.shadow, methods=METHODS)
    return replace(config, world=replace(config.world, key_to_door=door), shadow=shadow)


def saved(path, config, state, stage=TRAIN, seeds=1):
    """A run that ends with `state`."""
    run = run_dir.create(path, stage, config, num_seeds=seeds)
    Checkpoints(run).save(10, state)
    return run


def untrained(config):
    built = build_world(config.world)
    policy, model = build_policy(config, built), build_model(config.credit, built)
    init = jax.jit(make_init(config.train, policy, model, 0.1))
    return built, policy, model, init


@pytest.mark.parametrize("method", METHODS)
def test_first_decision_against_all_trajectories(tmp_path, method):
    config = config_of(method)
    built, policy, model, init = untrained(config)
    state = init(jax.random.key(1))
    (found,) = inspect_run(saved(tmp_path / "run", config, state))["seeds"]

    mdp = built.mdp
    acting = policy.acting(state.policy[0], config.train.epsilon)
    pi = jnp.exp(acting(jnp.asarray(mdp.observations, jnp.float32)))
    paths = enumerate_paths(mdp)
    chance = np.asarray(paths.probability(pi), float)

    c = config.credit.features

    def outcome(path, step):
        if method == "cocoa_reward":
            return round(float(paths.rewards[path, step]), 4)
        place = paths.states[path, step]
        if method == "hca_plus":
            return int(place)
        obs = jnp.asarray(mdp.observations[place][None], jnp.float32)
        action = jnp.asarray(paths.actions[path, step])[None]
        known = (int(place), int(action[0]))
        if known not in codes:
            bits = features(state.credit["features"], obs, action, c.threshold, c.binary) > 0
            codes[known] = np.asarray(bits).tobytes()
        return codes[known]

    codes = {}
    joint, paid = defaultdict(lambda: np.zeros(4)), defaultdict(float)
    for path, probability in enumerate(chance):
        for step in range(1, 5):
            reward = paths.rewards[path, step]
            if reward == 0.0 and config.credit.mask_zero_reward:
                continue
            u = outcome(path, step)
            joint[u][paths.actions[path, 0]] += probability
            paid[u] += probability * reward
    first = np.asarray(pi, float)[np.argmax(mdp.start)]
    wanted = [
        (paid[u] / joint[u].sum(), joint[u].sum(), *(joint[u] / joint[u].sum() / first - 1.0))
        for u in joint
        if paid[u] != 0.0
    ]
    rows = [(row["reward"], row["times"], *row["exact"]) for row in found["first_decision"]]
    np.testing.assert_allclose(sorted(rows), sorted(wanted), atol=1e-5)
    np.testing.assert_allclose(found["first_policy"], first, atol=1e-6)

    # Rewards times learned coefficients are what the estimator's tables credit on average.
    batch = from_paths(mdp.astype(jnp.float32), paths, pi)
    table = jax.jit(jax.vmap(lambda t: model.table(state.credit, t, jax.random.key(0))))
    credited = sum(
        row["reward"] * row["times"] * np.array(row["learned"]) for row in found["first_decision"]
    )
    np.testing.assert_allclose(credited, chance @ np.asarray(table(batch))[:, 0], atol=1e-5)


def test_a_silent_network_credits_nothing(tmp_path):
    """The second of two seeds has all rectified outputs off."""
    config = config_of("cocoa_reward")
    init = untrained(config)[-1]
    state = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 2))
    heads = state.credit["net"][0]["heads"]
    heads["b"] = heads["b"].at[1].set(-100.0)
    speaking, silent = inspect_run(saved(tmp_path / "run", config, state, seeds=2))["seeds"]
    assert speaking["silent"] < 1
    assert abs(speaking["error"] - speaking["size"]) > 1e-3
    assert silent["silent"] == pytest.approx(1)
    assert silent["error"] == pytest.approx(silent["size"], abs=1e-6)
    for row in silent["first_decision"]:
        assert row["silent"]
        assert row["learned"] == pytest.approx([0] * 4, abs=1e-6)


def test_rewards_after_a_switch(tmp_path):
    config = config_of("cocoa_reward", treasure_after=(-0.2,))
    config = replace(config, train=replace(config.train, switch_at=5))
    init = untrained(config)[-1]
    for step, treasure in ((4, 0.2 * 23 / 5), (5, -0.2 * 23 / 5)):
        state = init(jax.random.key(0)).replace(step=jnp.int32(step))
        found = inspect_run(saved(tmp_path / f"at_{step}", config, state))
        assert found["step"] == step
        paid = [row["reward"] for row in found["seeds"][0]["first_decision"]]
        assert min(abs(np.array(paid) - treasure)) < 1e-6


@pytest.fixture(scope="module")
def shadow(tmp_path_factory):
    """A run whose own estimator learns nothing."""
    from agents.credit.shadow import parallel_model
    from internal_rl.credit.run import shadow_models

    config = config_of("q_critic", "exact")
    built = build_world(config.world)
    model = parallel_model(shadow_models(config, built), "main")
    init = make_init(config.train, build_policy(config, built), model, 0.1)
    state = jax.jit(init)(jax.random.key(0))
    return saved(tmp_path_factory.mktemp("shadow") / "run", config, state, SHADOW)


def test_an_estimator_of_a_shadow_run(shadow, tmp_path, capsys):
    file = tmp_path / "found.json"
    command = ["inspect", "--run", str(shadow.path), "--output", str(file)]
    assert cli.main([*command, "--method", "cocoa_feature"]) == 0
    found = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == found
    # The same network in a training run of its own says the same.
    config = shadow.load_config(type(config_of("reinforce")))
    own = shadow_credits(config)["cocoa_feature"]
    state = jax.tree.map(lambda x: x[0], last_state(shadow))
    alone = saved(
        tmp_path / "alone",
        replace(config, credit=own),
        state.replace(credit=state.credit["cocoa_feature"]),
    )
    assert inspect_run(alone)["seeds"] == found["seeds"]
    with pytest.raises(UserError, match="exists"):
        cli.main([*command, "--method", "cocoa_feature"])


def test_what_has_no_coefficients(shadow, tmp_path):
    allowed = "allowed for this run: cocoa_reward, cocoa_feature, hca_plus"
    for method in ("", "q_critic"):
        with pytest.raises(UserError, match=f"method is '{method}'; {allowed}"):
            inspect_run(shadow, method)
    config = config_of("q_critic")
    with pytest.raises(UserError, match="learns no hindsight network"):
        inspect_run(run_dir.create(tmp_path / "critic", TRAIN, config))
    with pytest.raises(UserError, match="a run of 'pretrain'; allowed: 'credit-train'"):
        inspect_run(run_dir.create(tmp_path / "other", "pretrain", config))


def test_several_first_states_have_no_list(tmp_path):
    config = presets.get("cocoa-smoke", "cocoa_reward")
    config = replace(config, world=replace(config.world, kind="interleaving"))
    state = untrained(config)[-1](jax.random.key(0))
    (found,) = inspect_run(saved(tmp_path / "run", config, state))["seeds"]
    assert set(found) == {"size", "error", "silent"}
    assert found["size"] > 0
