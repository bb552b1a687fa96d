import jax
import jax.numpy as jnp
import numpy as np
import pytest

from internal_rl import build
from internal_rl.analysis import report, steer
from internal_rl.analysis.switching import switch_alignment
from internal_rl.models.control import LowRankControl, dense_control
from internal_rl.runs.statistics import hierarchical_success_ci, iqm, success_interval
from internal_rl.stages import evaluate
from internal_rl.stages.reinforce import Frozen
from tests.internal_rl.small import (
    SMOKE,
    assert_close,
    assert_trees_equal,
    base_params,
    heldout,
    meta_params,
    models,
    normal,
    policy_params,
)

WORLD = heldout()
SETTING, CLEAN = report.setting(SMOKE, WORLD), report.clean(SMOKE)


def outcome(success):
    success = np.asarray(success, bool)
    return {
        "success": success,
        "subgoals": success * 3 + 1,
        "switches": np.full(success.shape, 2),
        "steps": np.full(success.shape, 5),
    }


def test_summary_of_mixed_results():
    success = np.zeros((4, 10), bool)
    for seed, count in enumerate((0, 2, 4, 10)):
        success[seed, :count] = True
    summary = evaluate.summarise(outcome(success), seed=3)
    assert summary["success_iqm"] == pytest.approx(0.3)  # the middle two of four
    assert summary["success_per_seed"] == [0.0, 0.2, 0.4, 1.0]
    assert summary["success_pooled"] == pytest.approx(0.4)
    assert summary["subgoals"] == pytest.approx(1 + 3 * 0.4)
    assert summary["switches_per_episode"] == 2.0
    assert (summary["seeds"], summary["evaluation_episodes"]) == (4, 10)
    low, high = summary["ci95"]
    assert (low, high) == hierarchical_success_ci([0, 2, 4, 10], 10, seed=3)
    assert 0.0 <= low < float(iqm([0.0, 0.2, 0.4, 1.0])) < high <= 1.0


@pytest.mark.parametrize("value", [False, True])
def test_summary_where_all_episodes_end_alike(value):
    """A bootstrap would give an interval of no width."""
    summary = evaluate.summarise(outcome(np.full((3, 20), value)))
    assert summary["success_iqm"] == float(value)
    assert tuple(summary["ci95"]) == success_interval(60 * value, 60)
    low, high = summary["ci95"]
    assert high - low > 0.01


def test_methods_see_the_same_layouts_and_count_their_switches():
    """All ways of driving a base model are the same as long as what they write is zero."""
    stack = lambda tree, n: jax.tree.map(lambda x: jnp.stack([x] * n), tree)  # noqa: E731
    base = base_params()
    raw = evaluate.evaluate_raw(SETTING, stack(base, 2))
    shape = (2, SMOKE.evaluate.episodes)
    assert all(value.shape == shape for value in raw.values())
    assert not raw["switches"].any()
    assert (raw["steps"] >= 1).all()
    assert (raw["steps"] <= WORLD.horizon).all()
    assert 0 < raw["success"].mean() < 1
    np.testing.assert_array_equal(raw["success"], raw["subgoals"] == 1)  # one colour per task

    width, goals = SMOKE.model.width, SMOKE.env.num_objects
    nothing = {"a": normal(0, 2, goals, 3, width), "b": jnp.zeros((2, goals, width, 3))}
    steered = evaluate.evaluate_steering(SETTING, base, nothing)
    # Seeds have keys of their own, and the third key of a step is the action's in both.
    for name in ("success", "subgoals", "steps"):
        np.testing.assert_array_equal(steered[name], raw[name])
    assert (steered["switches"] >= 1).all()
    assert (raw["success"][0] != raw["success"][1]).any()

    meta = meta_params()
    mute = meta | {"decoder": meta["decoder"] | {"write": jnp.zeros_like(meta["decoder"]["write"])}}
    prior = evaluate.evaluate_prior(SETTING, Frozen(base, mute), 2)
    policy = evaluate.evaluate_policy(SETTING, Frozen(base, mute), stack(policy_params(), 2))
    replay = evaluate.evaluate_replay(SETTING, CLEAN, Frozen(base, mute), 2)
    for name in ("success", "subgoals", "steps"):
        np.testing.assert_array_equal(prior[name], raw[name])
        np.testing.assert_array_equal(policy[name], raw[name])
        np.testing.assert_array_equal(replay[name], raw[name])
    assert (replay["switches"] == 1).all()  # one colour per task
    assert (prior["switches"] >= 1).all()
    assert (prior["switches"] <= prior["steps"]).all()


def test_alignment_of_a_run_is_deterministic_and_bounded():
    frozen = Frozen(base_params(), meta_params())
    one = evaluate.evaluate_alignment(SETTING, CLEAN, frozen, sequences=64)
    assert one == evaluate.evaluate_alignment(SETTING, CLEAN, frozen, sequences=64)
    assert set(one) >= {"precision", "recall", "f1", "switches_per_episode"}
    assert all(0 <= one[name] <= 1 for name in ("precision", "recall", "f1"))
    nothing = jnp.zeros((1, 2), bool)
    assert set(one) == set(switch_alignment(jnp.zeros((1, 2)), nothing, nothing))


def test_labelled_controllers_learn_and_are_chosen_by_the_true_goal():
    controls, loss = evaluate.train_steering(SETTING, CLEAN, base_params(), seeds=2)
    assert loss.shape == (2,)
    assert controls["b"].any()  # they start at U = 0
    assert controls["a"].shape[:2] == (2, SMOKE.env.num_objects)
    one = {name: jnp.asarray(value[0]) for name, value in controls.items()}
    one["b"] = normal(1, *one["b"].shape)  # a few steps of training leave little to see
    controller = steer.labelled_controller(one)
    goal, e = jnp.array([2, 0, 3]), normal(2, 3, SMOKE.model.width)
    state, written, decision = controller.act(jax.random.key(0), e, controller.init(3), goal)
    for row in range(3):
        g = int(goal[row])
        u = np.asarray(dense_control(LowRankControl(one["a"][g], one["b"][g])))
        assert_close(written[row], e[row] + u @ e[row], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(decision.switch, [True, True, True])
    _, _, decision = controller.act(jax.random.key(0), e, state, jnp.array([2, 1, 3]))
    np.testing.assert_array_equal(decision.switch, [False, True, False])


def test_steering_trains_only_the_controls():
    before = jax.tree.map(np.asarray, base_params())
    source, steps = CLEAN.demonstrations, SMOKE.evaluate.steering_steps
    update = jax.jit(steer.make_update(models(), source, 8, steps))
    start = steer.init(jax.random.key(0), WORLD.num_goals, SMOKE.model.width, steps)
    state, metrics = update(start, (base_params(), source.data))
    assert np.isfinite(metrics["loss"])
    assert (np.asarray(state.params["b"]) != 0).any()
    assert_trees_equal(jax.tree.map(np.asarray, base_params()), before)


def test_success_on_any_task_set():
    setting = report.setting(SMOKE, build.heldout_world(SMOKE.env, ("01", "3210")))
    raw = evaluate.evaluate_raw(setting, jax.tree.map(lambda x: x[None], base_params()))
    assert raw["subgoals"].max() <= 4
