from dataclasses import replace
from itertools import pairwise
from types import ModuleType

import pytest

import configs
from configs import credit
from internal_rl.config import Config, PinpadConfig
from internal_rl.errors import UserError
from internal_rl.validate import validate


@pytest.mark.parametrize("name", [n for n in configs.names() if n != "own-laptop"])
def test_every_preset_is_complete(name):
    config = configs.get(name)
    validate(config)
    assert config.name == name
    assert config.env.pretrain_tasks
    assert config.env.heldout_tasks
    held_out = set(config.env.heldout_tasks)
    assert not held_out & set(config.env.pretrain_tasks)


def test_the_preset_for_a_world_of_your_own_lacks_only_that():
    config = configs.get("own-laptop")
    with pytest.raises(UserError, match=r"env\.world is ''; allowed: path/to/file\.py:NAME"):
        validate(config)
    some = PinpadConfig(pretrain_tasks=("01",), heldout_tasks=("10",))
    validate(replace(config, env=some))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("gridworld-labtop", "gridworld-laptop"),
        ("gridworld_paper", "gridworld-paper"),
        ("grid-smoke", "gridworld-smoke"),
        ("smoke", "token-smoke"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(UserError, match=f"unknown preset '{wrong}'; did you mean '{right}'"):
        configs.get(wrong)


def test_names_are_unique_and_their_own():
    family = ModuleType("family")
    family.PRESETS = {"a": Config(name="a")}
    with pytest.raises(ValueError, match="two presets are called 'a'"):
        configs._collect(family, family)
    family.PRESETS = {"a": Config(name="b")}
    with pytest.raises(ValueError, match="preset 'a' in family calls itself 'b'"):
        configs._collect(family)


def test_the_laptop_task_is_really_held_out():
    """No transition of the held-out task occurs in training (spec §8)."""
    env = configs.get("gridworld-laptop").env

    def transitions(tasks):
        return {pair for task in tasks for pair in pairwise(task)}

    assert env.heldout_tasks == ("0123",)
    assert len(env.pretrain_tasks) == 16
    assert not transitions(env.heldout_tasks) & transitions(env.pretrain_tasks)


def test_the_paper_preset_has_the_papers_numbers():
    """Tables A1, A4, A9, A13; App. A, C.3, D."""
    config = configs.get("gridworld-paper")
    env, model, meta = config.env, config.model, config.metacontroller
    assert (env.grid_size, env.num_objects, env.num_walls, env.horizon) == (7, 8, 4, 100)
    assert env.observation == "onehot"
    assert env.heldout_tasks == ("012345670123",)
    assert (model.width, model.depth, config.discover.controlled_layer, model.mlp_width) == (
        256,
        6,
        3,
        512,
    )
    assert (model.num_heads, model.head_dim, model.num_buckets, model.init_scale) == (
        4,
        64,
        32,
        0.1,
    )
    assert (meta.code_dim, meta.history_dim, meta.embedding_dim) == (8, 32, 32)
    assert (meta.encoder_hidden, meta.decoder_hidden, meta.rank, meta.gate) == (64, 32, 16, "soft")
    assert (config.pretrain.steps, config.pretrain.batch_size) == (256_000, 1024)
    assert (config.discover.steps, config.discover.batch_size) == (64_000, 512)
    assert config.discover.optimizer.learning_rate == 1e-3
    assert (config.reinforce.iterations, config.reinforce.batch_size) == (100_000, 1024)
    assert config.reinforce.optimizer.learning_rate == 3e-5
    assert config.evaluate.steering_steps == 3200


@pytest.mark.parametrize("name", configs.names())
def test_both_methods_get_the_same_number_of_episodes(name):
    config = configs.get(name)
    internal, raw = config.reinforce, config.raw_action
    assert (internal.method, raw.method) == ("internal", "raw_action")
    assert internal.iterations * internal.batch_size == raw.iterations * raw.batch_size


def test_features_of_task_interleaving_learn_from_all_stored_steps():
    found = {
        n: credit.get(n, "cocoa_feature").credit.features
        for n in ("cocoa-interleaving", "cocoa-length-23")
    }
    assert {name: features.after_end for name, features in found.items()} == {
        "cocoa-interleaving": True,
        "cocoa-length-23": False,  # its episodes have one length
    }
