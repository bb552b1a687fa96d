"""Stages as runs: what they write and refuse, several seeds, resuming, what they compile to."""

import jax
import numpy as np
import pytest

import configs
from internal_rl import build, pipeline
from internal_rl.analysis import report
from internal_rl.errors import UserError
from internal_rl.runs import loop
from internal_rl.runs import train as training
from internal_rl.runs.checkpoint import Checkpoints, export_params
from internal_rl.runs.logger import read_metrics
from internal_rl.stages import discover, evaluate, pretrain, reinforce
from tests.internal_rl.conftest import contents
from tests.internal_rl.killed import assert_survives_an_error
from tests.internal_rl.small import (
    SMOKE,
    all_equations,
    assert_trees_equal,
    changed,
    expert,
    heldout,
    meta_params,
    models,
    noisy,
    policy_params,
)

RAW = changed(SMOKE, reinforce={"method": "raw_action"})


def test_run_directories(runs):
    stages = {"pretrain": runs.base, "discover": runs.meta, "reinforce": runs.internal}
    for stage, run in stages.items():
        assert run.stage == stage
        assert run.info["status"] == "done"
        assert run.config == SMOKE
        metrics = read_metrics(run)
        np.testing.assert_array_equal(metrics["step"], [2, 4, 6, 8])
        assert all(np.isfinite(values).all() for values in metrics.values())
        assert Checkpoints(run).steps() == [4, 8]
        assert list(run.tensorboard_dir.iterdir())
    assert runs.meta.parent("pretrain").path.resolve() == runs.base.path.resolve()
    assert runs.internal.parent("discover").path.resolve() == runs.meta.path.resolve()
    assert {"loss", "action_nll", "obs_nll", "tokens"} <= read_metrics(runs.base).keys()
    assert {"kl", "gate", "precision", "recall", "f1"} <= read_metrics(runs.meta).keys()
    assert {"success", "subgoals", "switches_per_episode"} <= read_metrics(runs.internal).keys()


def test_nothing_compiles_after_the_first_chunk(runs):
    for stage, programs in runs.programs.items():
        assert len(programs) == 4, stage
        assert programs[0] > 0
        assert programs[-1] == programs[0], stage


def test_later_stages_leave_their_parents_alone(runs):
    assert contents(runs.base.path) == runs.base_contents


@pytest.mark.parametrize("method", ["internal", "raw_action"])
def test_parent_of_the_wrong_stage(runs, tmp_path, method):
    config, wrong = (SMOKE, runs.base) if method == "internal" else (RAW, runs.meta)
    with pytest.raises(UserError, match=r"is a run of stage .*; expected stage"):
        pipeline.run_reinforce(config, tmp_path / "run", wrong)
    with pytest.raises(UserError, match=r"'discover'; expected stage 'pretrain'"):
        pipeline.run_discover(SMOKE, tmp_path / "run", runs.meta)
    assert not list(tmp_path.iterdir())


def test_seeds_that_do_not_exist(runs, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(UserError, match=r"base: no seed 1; allowed: 0..0"):
        pipeline.run_discover(SMOKE, path, runs.base, base_seed=1)
    with pytest.raises(UserError, match=r"meta: no seed 2; allowed: 0..0"):
        pipeline.run_reinforce(SMOKE, path, runs.meta, parent_seed=2)
    with pytest.raises(UserError, match=r"no seed -1; allowed: 0..0"):
        pipeline.run_reinforce(SMOKE, path, runs.meta, parent_seed=-1)
    with pytest.raises(UserError, match="seeds is 0; allowed: at least 1"):
        pipeline.run_pretrain(SMOKE, path, seeds=0)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def untrained(monkeypatch):
    """Runs are made and linked, but neither initialised nor trained."""
    monkeypatch.setattr(loop, "run", lambda *_, **__: None)
    initial = training.initial

    def shapes(init, *which):  # weights that a test brings along are still loaded
        return jax.eval_shape(lambda: initial(init, *which))

    monkeypatch.setattr(pipeline, "shapes", shapes)
    monkeypatch.setattr(training, "initial", lambda *_: None)


def test_parent_without_a_checkpoint(runs, tmp_path):
    from internal_rl.runs.run_dir import create

    empty = create(tmp_path / "empty", "pretrain", SMOKE)
    with pytest.raises(UserError, match="no checkpoint yet"):
        pipeline.run_discover(SMOKE, tmp_path / "run", empty)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("untrained")
def test_config_of_the_parent_wins_where_it_must(runs, tmp_path):
    """Sizes that are already trained, and the world; not the held-out tasks, which are free."""
    other = changed(
        SMOKE,
        env={"heldout_tasks": ("21",), "num_walls": 0},
        model={"width": 8},
        metacontroller={"code_dim": 5},
    )
    run = pipeline.run_reinforce(other, tmp_path / "run", runs.meta)
    assert run.config == changed(SMOKE, env={"heldout_tasks": ("21",)})


@pytest.fixture(scope="session")
def two_bases(tmp_path_factory):
    """A pretrain run with two seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    return pipeline.run_pretrain(SMOKE, folder / "bases", seeds=2, progress=False)


def alone(init, update, steps):
    """(seed, further arguments) → the same stage for one of two seeds, without the machinery of runs."""

    @jax.jit
    def train(key, *arguments):
        state = init(key)
        return jax.lax.scan(lambda s, _: update(s, *arguments), state, None, length=steps)

    keys = jax.random.split(jax.random.key(SMOKE.seed), 2)
    return lambda seed, *arguments: train(keys[seed], *arguments)


def test_two_seeds_at_once_equal_two_runs_pretrain(two_bases):
    cfg, network = SMOKE.pretrain, models().base
    update = pretrain.make_update(cfg, network, expert(clean=False))
    train = alone(lambda key: pretrain.init(cfg, network, key), update, cfg.steps)
    metrics = read_metrics(two_bases)
    assert metrics["action_nll"].shape == (4, 2)
    for seed in range(2):
        state, found = train(seed)
        expected = np.asarray(found["action_nll"]).reshape(4, 2).mean(1)
        np.testing.assert_allclose(metrics["action_nll"][:, seed], expected, rtol=1e-4)
        together = pipeline.load_params(two_bases, seed)
        for (path, one), other in zip(
            jax.tree_util.tree_leaves_with_path(together),
            jax.tree.leaves(state.params),
            strict=True,
        ):
            name = jax.tree_util.keystr(path)
            if name.endswith("['key']['bias']"):
                continue  # softmax ignores it: its gradient is rounding, which AdamW blows up
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=name)
    first, second = (pipeline.load_params(two_bases, seed) for seed in range(2))
    assert (first["embed"]["kernel"] != second["embed"]["kernel"]).any()
    both = pipeline.load_params(two_bases, None)
    assert_trees_equal(jax.tree.map(lambda x: x[1], both), second)


def test_two_seeds_at_once_equal_two_runs_reinforce(runs, tmp_path):
    """Batched loops that stop at different times must not disturb each other."""
    config = changed(SMOKE, reinforce={"iterations": 4, "optimizer": {"learning_rate": 1e-2}})
    run = pipeline.run_reinforce(config, tmp_path / "run", runs.meta, seeds=2, progress=False)
    metrics = read_metrics(run)
    frozen = pipeline.load_frozen(runs.meta)
    update = reinforce.make_update(config.reinforce, models(config), heldout(config))
    train = alone(lambda key: reinforce.init(config.reinforce, models(config), key), update, 4)
    for seed in range(2):
        _, found = train(seed, frozen)
        for name in ("success", "episode_length", "entropy"):
            expected = np.asarray(found[name]).reshape(2, 2).mean(1)
            np.testing.assert_allclose(
                metrics[name][:, seed], expected, rtol=1e-3, atol=1e-4, err_msg=name
            )


def test_a_run_remembers_which_seed_it_was_built_on(two_bases, tmp_path, monkeypatch):
    run = pipeline.run_discover(
        changed(SMOKE, discover={"steps": 4}),
        tmp_path / "meta",
        two_bases,
        base_seed=1,
        progress=False,
    )
    second = pipeline.load_params(two_bases, 1)
    assert_trees_equal(pipeline.load_base(run), second)
    assert_trees_equal(pipeline.load_frozen(run).base, second)
    # Also when it is resumed without naming the seed again, and one stage on.
    used = {}
    monkeypatch.setattr(loop, "run", lambda *_, frozen, **__: used.update(found=frozen))
    pipeline.run_discover(SMOKE, tmp_path / "meta", two_bases, resume=True)
    assert_trees_equal(used["found"], (second, ()))  # with the data, none of which is stored
    internal = pipeline.run_reinforce(SMOKE, tmp_path / "internal", run)
    assert_trees_equal(used["found"].base, second)
    assert_trees_equal(pipeline.load_base(internal), second)


@pytest.mark.usefixtures("untrained")
def test_a_policy_is_evaluated_on_the_metacontroller_that_it_was_trained_on(
    runs, tmp_path, monkeypatch
):
    """Not on the first seed of its parent run."""
    both = jax.tree.map(lambda *x: np.stack(x), noisy(meta_params(), 2), noisy(meta_params(), 3))
    metas = pipeline.run_discover(SMOKE, tmp_path / "metas", runs.base, seeds=2)
    export_params(metas.path / "weights" / "discover.safetensors", both, {})
    run = pipeline.run_reinforce(SMOKE, tmp_path / "run", metas, parent_seed=1)
    export_params(run.path / "weights" / "reinforce.safetensors", policy_params(), {})
    used = []
    monkeypatch.setattr(evaluate, "evaluate_policy", lambda *given: used.append(given) or {})
    report.policy_outcome(run, SMOKE, heldout())
    ((_, frozen, policies),) = used
    assert_trees_equal(frozen.metacontroller, jax.tree.map(lambda x: x[1], both))
    assert_trees_equal(frozen.base, pipeline.load_params(runs.base))
    assert_trees_equal(policies, jax.tree.map(lambda x: x[None], policy_params()))


def test_which_seed_of_a_run_is_evaluated(two_bases, monkeypatch):
    used = []
    monkeypatch.setattr(report, "steering", lambda *given: used.append(given) or {})
    monkeypatch.setattr(evaluate, "evaluate_raw", lambda *_: {})
    monkeypatch.setattr(report, "_summary", lambda *_: {})
    report.evaluate_run(two_bases, SMOKE, ("0",), seeds=1, seed_index=1)
    ((_, _, base, _),) = used
    assert_trees_equal(base, pipeline.load_params(two_bases, 1))


def test_weights_that_a_run_was_imported_with(runs, tmp_path):
    from internal_rl.runs.run_dir import create

    run = create(tmp_path / "imported", "pretrain", SMOKE)
    weights = pipeline.load_params(runs.base)
    export_params(run.path / "weights" / "pretrain.safetensors", weights, {})
    assert_trees_equal(pipeline.load_params(run), weights)


def test_error_and_resume_equals_an_uninterrupted_run(runs, tmp_path):
    """Pretraining; see test_discover, test_demo and test_reinforce_credit for the other stages."""
    command = ["pretrain", "--preset", "gridworld-smoke", "--env.heldout-tasks", "0", "3"]
    assert_survives_an_error(command, runs.base, tmp_path / "killed")


def traced(stage, config, monkeypatch):
    """The program of one update, from shapes alone."""
    key, nets = jax.random.key(0), models(config)
    monkeypatch.setattr(build, "_mean_length", lambda *_: 8.0)  # measuring it plays episodes
    start = jax.eval_shape(lambda: pretrain.init(config.pretrain, nets.base, key))
    if stage == "pretrain":
        source = expert(config, clean=False)
        update = pretrain.make_update(config.pretrain, nets.base, source)
        return jax.make_jaxpr(update)(start, source.data)
    base = start.params
    if stage == "discover":
        cfg = config.discover
        state = jax.eval_shape(lambda base: discover.init(cfg, nets, key, base), base)
        world = build.pretrain_world(config.env)
        source, tail = build.discovery_demonstrations(config, world)
        update = discover.make_update(cfg, nets, world, source, tail)
        return jax.make_jaxpr(update)(state, (base, source.data))
    cfg = config.raw_action if stage == "raw_action" else config.reinforce
    state = jax.eval_shape(lambda base: reinforce.init(cfg, nets, key, base), base)
    frozen = reinforce.Frozen(base=base, metacontroller=jax.eval_shape(nets.meta.init, key))
    world = reinforce.training_world(heldout(config), cfg)
    return jax.make_jaxpr(reinforce.make_update(cfg, nets, world))(state, frozen)


STAGES = ["pretrain", "discover", "reinforce", "raw_action"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("observation", "mixer"),
    [("onehot", "transformer"), ("offsets", "hawk"), ("egocentric", "hawk")],
)
def test_every_stage_takes_every_observation_and_mixer(stage, observation, mixer, monkeypatch):
    config = changed(SMOKE, env={"observation": observation}, model={"mixer": mixer})
    assert traced(stage, config, monkeypatch).out_avals


@pytest.mark.parametrize("stage", STAGES)
def test_the_paper_preset_is_a_program(stage, monkeypatch):
    """Shapes, dtypes and settings fit together at full size; training it takes an accelerator."""
    program = traced(stage, configs.get("gridworld-paper"), monkeypatch)
    assert sum(aval.size for aval in program.in_avals) > 1e6


@pytest.mark.parametrize("stage", STAGES)
def test_programs_do_not_grow_with_time(stage, monkeypatch):
    """One loop over time in the program, not one copy of its body per step."""
    short, long = (
        all_equations(traced(stage, changed(SMOKE, env={"horizon": horizon}), monkeypatch))
        for horizon in (16, 24)
    )
    names = [str(equation.primitive) for equation in short]
    assert "scan" in names or "while" in names
    if stage in ("reinforce", "raw_action"):
        assert "while" in names
    assert len(long) == len(short)
