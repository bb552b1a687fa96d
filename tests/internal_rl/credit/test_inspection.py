"""Learned and exact coefficients of a run, against all trajectories of a small world."""

import json
from collections import defaultdict
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.credit import hindsight
from agents.credit.features import features
from agents.credit.networks import mlp
from agents.credit.shadow import parallel_model
from agents.credit.train import make_init
from agents.credit.trajectory import from_paths
from configs import credit as presets
from envs.credit.enumeration import enumerate_paths
from internal_rl.commands import credit as cli
from internal_rl.credit.inspection import inspect_run
from internal_rl.credit.run import (
    SHADOW,
    TRAIN,
    build_model,
    build_policy,
    last_state,
    shadow_models,
)
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


CASES = [
    ("cocoa_reward", {}),
    ("cocoa_reward", {"mask_zero_reward": False, "hindsight_loss": "contrastive"}),
    ("cocoa_feature", {}),
    ("cocoa_feature", {"mask_zero_reward": False}),
    ("hca_plus", {}),
    ("hca", {}),
]


@pytest.mark.parametrize(("method", "changes"), CASES)
def test_against_all_trajectories(tmp_path, method, changes):
    """A narrow network with lowered outputs, so that it is silent for some pairs of state and outcome."""
    config = config_of(method)
    # Untrained features tell outcomes apart, but not all: terminal states share one with steps that pay.
    several = replace(config.credit.features, threshold=0.6)
    credit = replace(config.credit, hindsight_width=3, features=several, **changes)
    config = replace(config, credit=credit)
    built, policy, model, init = untrained(config)
    state = init(jax.random.key(3))
    names, vectors = outcomes_of(config, built, state)
    lower_outputs(state.credit["net"][0], built.mdp.observations, list(vectors.values()))
    (found,) = inspect_run(saved(tmp_path / "run", config, state))["seeds"]

    mdp, c = built.mdp, config.credit
    obs = jnp.asarray(mdp.observations, jnp.float32)
    log_policy = policy.acting(state.policy[0], config.train.epsilon)(obs)
    pi = np.asarray(jnp.exp(log_policy), float)
    paths = enumerate_paths(mdp)
    chance = np.asarray(paths.probability(jnp.exp(log_policy)), float)
    net = jax.jit(hindsight.hypernetwork)
    x = net(state.credit["net"][0], obs, jnp.asarray(list(vectors.values())), log_policy)
    if c.hindsight_loss == "contrastive":
        ratio = hindsight.contrastive_ratio(x, log_policy, c.clip_ratio)
    else:
        ratio = hindsight.classification_ratio(x, log_policy)
    place = {u: k for k, u in enumerate(vectors)}

    # p(action, outcome later) by state, over examples of outcomes and over steps with a reward.
    examples, paid = defaultdict(lambda: np.zeros(4)), defaultdict(lambda: np.zeros(4))
    reward = defaultdict(float)
    for path, probability in enumerate(chance):
        for later in range(1, 5):
            amount = float(paths.rewards[path, later])
            if amount == 0.0 and c.mask_zero_reward:
                continue
            place_action = int(paths.states[path, later]), int(paths.actions[path, later])
            u = round(amount, 4) if method == "cocoa_reward" else names[place_action]
            for step in range(later):
                pair, action = (paths.states[path, step], u), paths.actions[path, step]
                examples[pair][action] += probability
                if amount != 0.0:
                    paid[pair][action] += probability
                    reward[pair] += probability * amount
    total, sizes, errors, silent, rows = 0.0, 0.0, 0.0, 0.0, []
    for (s, u), joint in paid.items():
        times, w = joint.sum(), examples[s, u] / examples[s, u].sum() / pi[s] - 1.0
        learned = np.asarray(ratio[s, place[u]], float) - 1.0
        size = times * pi[s] @ np.abs(w)
        total, sizes = total + times, sizes + size
        errors += times * pi[s] @ np.abs(learned - w)
        silent += size * bool((x[s, place[u]] == 0.0).all())
        if mdp.start[s] > 0:
            rows.append((reward[s, u] / times, times, *w, *learned))
    assert sizes / total > 0.01
    assert 0.0 < silent / sizes < 1.0
    assert found["size"] == pytest.approx(sizes / total, rel=1e-4)
    assert found["error"] == pytest.approx(errors / total, rel=1e-4)
    assert found["silent"] == pytest.approx(silent / sizes, rel=1e-4)

    # Advantages by state: returns after each action, and rewards later by outcome times coefficients.
    visits, first_reward, later_reward = (np.zeros((mdp.num_states, 4)) for _ in range(3))
    for path, probability in enumerate(chance):
        for step in np.flatnonzero(~paths.done[path, :-1]):
            here = paths.states[path, step], paths.actions[path, step]
            visits[here] += probability
            first_reward[here] += probability * paths.rewards[path, step]
            later_reward[here] += probability * paths.rewards[path, step + 1 :].sum()
    seen = visits.sum(axis=1)
    of_action = np.where(visits > 0, visits, 1.0)
    q, at_once = (first_reward + later_reward) / of_action, first_reward / of_action
    exactly, learnedly = at_once.copy(), at_once.copy()
    if method == "hca":
        learnedly = np.asarray(mlp(state.credit["reward"][0], obs), float)
    for (s, u), amount in reward.items():
        joint = examples[s, u]
        exactly[s] += amount / seen[s] * (joint / joint.sum() / pi[s] - 1.0)
        learnedly[s] += amount / seen[s] * (np.asarray(ratio[s, place[u]], float) - 1.0)
    # Numbers per state leave the gradient as it is; contrastive coefficients have one.
    true, exactly, learnedly = (
        x - np.sum(pi * x, axis=1, keepdims=True) for x in (q, exactly, learnedly)
    )
    mean = lambda x: seen @ np.sum(pi * np.abs(x), axis=1) / seen.sum()  # noqa: E731
    assert found["advantage"] == pytest.approx(mean(true), rel=1e-4)
    assert found["outcome_error"] == pytest.approx(mean(exactly - true), rel=1e-4, abs=1e-6)
    assert (found["outcome_error"] > 1e-3) == (changes == {"mask_zero_reward": False})
    assert found["learned_error"] == pytest.approx(mean(learnedly - true), rel=1e-4)
    weight = seen * np.sum(pi * np.abs(true), axis=1)
    wrong = learnedly[np.arange(len(pi)), true.argmax(axis=1)] < 1e-6
    share = wrong @ weight / weight.sum()
    assert 0.01 < share < 1
    assert found["misled"] == pytest.approx(share, rel=1e-4, abs=1e-6)
    listed = [
        (row["reward"], row["times"], *row["exact"], *row["learned"])
        for row in found["first_decision"]
    ]
    order = lambda row: np.round(row, 3).tolist()  # noqa: E731
    np.testing.assert_allclose(sorted(listed, key=order), sorted(rows, key=order), atol=1e-4)
    first = int(np.argmax(mdp.start))
    np.testing.assert_allclose(found["first_policy"], pi[first], atol=1e-6)

    # Rewards times learned coefficients are what the estimator's tables credit on average.
    batch = from_paths(mdp.astype(jnp.float32), paths, jnp.exp(log_policy))
    table = jax.jit(jax.vmap(lambda t: model.table(state.credit, t, jax.random.key(0))))
    credited = sum(
        row["reward"] * row["times"] * np.array(row["learned"]) for row in found["first_decision"]
    )
    if method == "hca":
        credited = credited + np.asarray(mlp(state.credit["reward"][0], obs))[first]
    np.testing.assert_allclose(credited, chance @ np.asarray(table(batch))[:, 0], atol=1e-4)


def lower_outputs(params, obs, vectors):
    """Until all are off for half of the pairs."""
    pairs = np.array([[*o, *u] for o in obs for u in vectors], np.float32)
    hidden, heads = params["hidden"], params["heads"]
    first = np.concatenate([hidden["obs"], hidden["outcome"]])
    z = np.maximum(pairs @ first + np.asarray(hidden["b"]), 0)
    highest = (z @ np.asarray(heads["w"]).T + np.asarray(heads["b"])).max(axis=1)
    heads["b"] = heads["b"] - float(np.median(highest))


def outcomes_of(config, built, state):
    """Name of the outcome of every state and action (rewards name their own), and what the network sees of it."""
    pairs = [(s, a) for s in range(built.mdp.num_states) for a in range(4)]
    if config.credit.method == "cocoa_reward":
        listed = built.spec.reward_values[int(config.credit.mask_zero_reward) :]
        rows = np.eye(len(listed), dtype=np.float32)
        return {}, {round(v, 4): row for v, row in zip(listed, rows, strict=True)}
    obs = np.asarray(built.mdp.observations, np.float32)
    if config.credit.method in ("hca", "hca_plus"):
        return {pair: pair[0] for pair in pairs}, dict(enumerate(obs))
    c = config.credit.features
    place, action = (jnp.asarray(column) for column in zip(*pairs, strict=True))
    found = features(
        state.credit["features"], jnp.asarray(obs)[place], action, c.threshold, c.binary
    )
    rows = np.asarray(found > 0, np.float32)
    names = {pair: row.tobytes() for pair, row in zip(pairs, rows, strict=True)}
    return names, {row.tobytes(): row for row in rows}


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
    assert silent["learned_error"] > 0.01
    assert 0.0 < silent["misled"] < 1.0  # rewards at once are credited all the same
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
    for method, given in {"": "not set", "q_critic": "'q_critic'", "main": "'main'"}.items():
        with pytest.raises(UserError, match=f"method is {given}; {allowed}"):
            inspect_run(shadow, method)
    config = config_of("q_critic")
    with pytest.raises(UserError, match="none, no hindsight network is learned"):
        inspect_run(run_dir.create(tmp_path / "critic", TRAIN, config))
    with pytest.raises(UserError, match="a run of 'pretrain'; allowed: 'credit-train'"):
        inspect_run(run_dir.create(tmp_path / "other", "pretrain", config))


def test_acting_models_and_successor_counts_have_coefficients(tmp_path):
    """The acting one of a shadow run is told apart from the measured one of the same name."""
    config = config_of("cocoa_reward")
    config = replace(config, credit=replace(config.credit, hindsight_loss="successor"))
    config = replace(config, shadow=replace(config.shadow, methods=("cocoa_reward",)))
    built = build_world(config.world)
    models = parallel_model(shadow_models(config, built), "main")
    init = make_init(config.train, build_policy(config, built), models, 0.1)
    run = saved(tmp_path / "run", config, jax.jit(init)(jax.random.key(0)), SHADOW)
    with pytest.raises(UserError, match="not set; allowed for this run: main, cocoa_reward"):
        inspect_run(run)
    acting, measured = (inspect_run(run, name) for name in ("main", "cocoa_reward"))
    assert acting["method"] == measured["method"] == "cocoa_reward"
    (acting,), (measured,) = acting["seeds"], measured["seeds"]
    assert acting["size"] == measured["size"]
    assert acting["error"] != measured["error"]


def test_several_first_states_have_no_list(tmp_path):
    config = presets.get("cocoa-smoke", "cocoa_reward")
    config = replace(config, world=replace(config.world, kind="interleaving"))
    state = untrained(config)[-1](jax.random.key(0))
    (found,) = inspect_run(saved(tmp_path / "run", config, state))["seeds"]
    pairs, decisions = {"size", "error", "silent"}, {"outcome_error", "learned_error", "misled"}
    assert set(found) == pairs | decisions | {"advantage"}
    assert found["size"] > 0
