import dataclasses

import pytest

import configs
from internal_rl.errors import UserError
from internal_rl.validate import validate

BASE = configs.get("gridworld-laptop")


def changed(path, value):
    """The laptop preset with one field, given by its dotted name, replaced."""

    def replace(config, parts):
        head, *rest = parts
        new = replace(getattr(config, head), rest) if rest else value
        return dataclasses.replace(config, **{head: new})

    return replace(BASE, path.split("."))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "seed is -1; allowed: at least 0"),
        ("seed", 2**32, "seed is 4294967296; allowed: at most"),
        ("env.num_objects", 16, "num_objects=16: allowed is 1 to 10"),
        ("env.num_walls", 12, "env.num_objects=4 .* 17 cells: allowed is at most .* 16"),
        ("env.grid_size", 2, r"env.num_objects=4 \+ num_walls=1 \+ 1 agent = 6 cells"),
        ("env.horizon", 3, "env.heldout_tasks: .*horizon=3: task 0123 takes at least 4"),
        ("env.horizon", 0, "env.pretrain_tasks: horizon=0: task 032 takes at least 3 .* 3 or more"),
        ("env.pretrain_tasks", ("032", "041"), "env.pretrain_tasks: task '041': colour 4"),
        ("env.pretrain_tasks", (), "env.pretrain_tasks: .* is empty"),
        ("env.heldout_tasks", ("",), "env.heldout_tasks: task '' is empty"),
        ("env.heldout_tasks", ("01a",), "env.heldout_tasks: task '01a': 'a' is not a colour"),
        (
            "discover.controlled_layer",
            5,
            r"controlled_layer is 5; allowed: 0 to .* depth \(4\), or -1",
        ),
        ("discover.controlled_layer", -2, "discover.controlled_layer is -2; allowed: 0 to"),
        ("model.width", 0, "model.width is 0; allowed: at least 1"),
        ("model.num_buckets", 7, "model.num_buckets is 7; allowed: an even number"),
        ("model.max_distance", 16, "model.max_distance is 16; allowed: more than half"),
        ("model.lru_blocks", 7, r"model.lru_width is \d+; allowed: a multiple .* \(7\)"),
        ("metacontroller.rank", -1, "metacontroller.rank is -1; allowed: at least 0"),
        ("metacontroller.rank", 129, r"metacontroller.rank is 129; allowed: 0 \(full\) to"),
        ("metacontroller.embedding_width", 30, "embedding_width is 30; allowed: a multiple of 4"),
        ("metacontroller.gate_temperature", 0.0, "gate_temperature is 0.0; allowed: above 0"),
        ("pretrain.steps", 6001, "pretrain.steps is 6001; allowed: a positive multiple"),
        ("pretrain.epsilon", 1.0, r"pretrain.epsilon is 1.0; allowed: in \[0, 1\)"),
        ("pretrain.optimizer.learning_rate", 0.0, "pretrain.optimizer.learning_rate is 0.0"),
        ("discover.optimizer.b2", 1.0, r"discover.optimizer.b2 is 1.0; allowed: in \[0, 1\)"),
        ("discover.optimizer.decay_steps", 10, "decay_steps is 10; allowed: 0 unless schedule is"),
        ("discover.kl_weight", -0.1, "discover.kl_weight is -0.1; allowed: at least 0"),
        ("discover.kl_weight", float("nan"), "discover.kl_weight is nan; allowed: a finite"),
        ("discover.candidates", 0, "candidates is 0; allowed: at least 1"),
        ("discover.select_steps", 0, "select_steps is 0; allowed: 1 to discover.steps"),
        ("discover.encoder_stretch", 1, "encoder_stretch is 1; allowed: 0, or at least 2"),
        ("reinforce.distractor_steps", 0, "distractor_steps is 0; allowed: at least 1"),
        ("discover.tail_steps", 10**6, "tail_steps is 1000000; allowed: at most what hold"),
        ("discover.tail_kl_decay_steps", 7000, r"allowed: at most discover.tail_steps \(6000\)"),
        ("metacontroller.random_switch_rate", 1.5, "random_switch_rate is 1.5; allowed: 0 to 1"),
        ("discover.steps", 0, "discover.steps is 0; allowed: a positive multiple"),
        (
            "reinforce.abstract_steps",
            25,
            r"abstract_steps is 25; allowed: 0 \(all\) to the world's horizon",
        ),
        ("reinforce.minibatches", 3, r"reinforce.batch_size is 1024; allowed: a multiple .* \(3\)"),
        ("reinforce.switch_threshold", 1.0, "reinforce.switch_threshold is 1.0; allowed: between"),
        ("reinforce.switch_threshold", 0.0, "reinforce.switch_threshold is 0.0"),
        ("reinforce.policy_width", 60, "reinforce.policy_width is 60; allowed: a multiple"),
        ("reinforce.iterations", -10, "reinforce.iterations is -10; allowed: a positive"),
        ("raw_action.method", "internal", "raw_action.method is 'internal'; allowed: 'raw_action'"),
        ("raw_action.abstract_steps", 3, "abstract_steps is 3; allowed: 0 for raw actions"),
        ("raw_action.minibatches", 3, r"raw_action.batch_size is 1024; allowed: a multiple"),
        ("raw_action.iterations", 7, "raw_action.iterations is 7; allowed: a positive multiple"),
        ("evaluate.episodes", 0, "evaluate.episodes is 0; allowed: at least 1"),
        ("runtime.log_every", 0, "runtime.log_every is 0; allowed: at least 1"),
        ("runtime.checkpoint_every", 15, "runtime.checkpoint_every is 15; allowed: a positive"),
        ("runtime.keep_checkpoints", 0, "runtime.keep_checkpoints is 0; allowed: at least 1"),
        ("runtime.cpu_devices", 0, "runtime.cpu_devices is 0; allowed: at least 1"),
    ],
)
def test_each_bad_field_has_one_clear_line(field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        validate(changed(field, value))
    assert "\n" not in str(caught.value)


def test_alpha_cannot_fall_geometrically_to_zero():
    found = dataclasses.replace(BASE.discover, tail_kl_decay_steps=10, tail_kl_weight=0.0)
    with pytest.raises(UserError, match="tail_kl_decay_steps is 10; allowed: 0 unless both α"):
        validate(dataclasses.replace(BASE, discover=found))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("observation", "pixels", "env.observation is 'pixels'; allowed: one of 'egocentric'"),
        ("horizon", 12.5, "env.horizon is 12.5; allowed: int"),
    ],
)
def test_wrong_types_of_configs_made_in_python(field, value, message):
    config = dataclasses.replace(BASE, env=dataclasses.replace(BASE.env))
    object.__setattr__(config.env, field, value)  # past the type checker of the tests
    with pytest.raises(UserError, match=message):
        validate(config)


@pytest.mark.parametrize("layer", [0, BASE.model.depth, -1])
def test_control_at_either_end_and_in_the_middle_is_allowed(layer):
    validate(changed("discover.controlled_layer", layer))


def test_full_control_is_allowed():
    validate(changed("metacontroller.rank", 0))
