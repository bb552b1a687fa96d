"""Presets of gridworld-pinpad (paper App. A, C, D)."""

from envs.pinpad.tables import POST_A1, POST_A2, TABLE_A1, TABLE_A2
from internal_rl.config import (
    Config,
    DiscoverConfig,
    EvaluateConfig,
    MetacontrollerConfig,
    ModelConfig,
    OptimizerConfig,
    PinpadConfig,
    PretrainConfig,
    ReinforceConfig,
    RuntimeConfig,
)

# The paper's numbers. Fields not named here keep their defaults, which are the paper's where it
# gives one.
_PAPER = Config(
    name="gridworld-paper",
    env=PinpadConfig(
        grid_size=7,
        num_objects=8,
        num_walls=4,
        horizon=100,
        observation="onehot",
        pretrain_tasks=TABLE_A1,
        heldout_tasks=POST_A1,
    ),
    # Table A4: the Transformer of App. D.1.
    model=ModelConfig(
        mixer="transformer",
        width=256,
        depth=6,
        mlp_width=512,
        num_heads=4,
        head_dim=64,
        num_buckets=32,
        init_scale=0.1,
    ),
    pretrain=PretrainConfig(
        steps=256_000,
        batch_size=1024,
        packing=False,
        obs_loss_weight=0.01,
        epsilon=0.0,
        optimizer=OptimizerConfig(learning_rate=3e-4, weight_decay=0.03),
    ),
    metacontroller=MetacontrollerConfig(
        code_dim=8, history_dim=32, embedding_dim=32, encoder_hidden=64, decoder_hidden=32, rank=16
    ),
    # Table A9. The paper scans α over 0, .05, .1, .17, .3, .5 and 1.
    discover=DiscoverConfig(
        controlled_layer=3,
        steps=64_000,
        batch_size=512,
        kl_weight=0.17,
        obs_loss_weight=0.0,
        tie_breaking="uniform",
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.03),
    ),
    # Table A13.
    reinforce=ReinforceConfig(
        iterations=100_000,
        batch_size=1024,
        switch_threshold=0.5,
        policy_width=256,
        optimizer=OptimizerConfig(learning_rate=3e-5, weight_decay=0.0),
    ),
    raw_action=ReinforceConfig(
        method="raw_action",
        iterations=100_000,
        batch_size=1024,
        optimizer=OptimizerConfig(learning_rate=3e-5, weight_decay=0.0),
    ),
    # App. C.3: labelled controllers train for 3.2k steps.
    evaluate=EvaluateConfig(episodes=1024, steering_steps=3200),
    runtime=RuntimeConfig(log_every=100, checkpoint_every=2000, keep_checkpoints=2),
)

# The whole pipeline in minutes on two CPU cores: Table A2's tasks on a small grid.
_LAPTOP = Config(
    name="gridworld-laptop",
    env=PinpadConfig(
        grid_size=4,
        num_objects=4,
        num_walls=1,
        horizon=24,
        observation="egocentric",
        pretrain_tasks=TABLE_A2,
        heldout_tasks=POST_A2,
    ),
    model=ModelConfig(
        mixer="transformer",
        width=64,
        depth=4,
        mlp_width=128,
        num_heads=4,
        head_dim=16,
        max_distance=32,
        lru_width=64,
        lru_blocks=4,
        init_scale=1.0,
    ),
    pretrain=PretrainConfig(
        steps=60_000,
        batch_size=64,
        packing=True,
        obs_loss_weight=0.01,
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            weight_decay=0.03,
            schedule="cosine",
            warmup_steps=200,
            grad_clip=1.0,
        ),
    ),
    metacontroller=MetacontrollerConfig(gate="hard", input_norm=True),
    # The views keep places, directions and most of durations out of the codes. The KL holds until codes name colours,
    # the best of four candidates goes on, the KL prunes its switches; the tail, with the expert's ties drawn at random,
    # sharpens codes and decoder (docs/results).
    discover=DiscoverConfig(
        controlled_layer=1,
        steps=11_000,
        batch_size=128,
        kl_weight=0.15,
        kl_warmup_start=0.005,
        kl_hold_steps=3000,
        kl_warmup_steps=1500,
        tie_breaking="deterministic",
        tail_steps=6000,
        tail_kl_weight=0.003,
        tail_tie_breaking="uniform",
        encoder_view="symmetric",
        encoder_stretch=2,
        candidates=4,
        select_steps=3000,
        optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.03, grad_clip=1.0),
    ),
    # Wide exploration: on unseen transitions only codes larger than the expert's overrule the base model.
    reinforce=ReinforceConfig(
        iterations=250,
        batch_size=1024,
        epochs=2,
        minibatches=1,
        policy_width=64,
        abstract_steps=8,
        initial_std=2.5,
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.0),
    ),
    raw_action=ReinforceConfig(
        method="raw_action",
        iterations=250,
        batch_size=1024,
        epochs=2,
        minibatches=1,
        optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.0),
    ),
    evaluate=EvaluateConfig(episodes=1024, steering_steps=1000),
    runtime=RuntimeConfig(log_every=10, checkpoint_every=500, keep_checkpoints=2),
)

# Every stage in seconds. It learns nothing; tests use it.
_SMOKE = Config(
    name="gridworld-smoke",
    env=PinpadConfig(
        grid_size=4,
        num_objects=4,
        num_walls=1,
        horizon=16,
        observation="egocentric",
        pretrain_tasks=TABLE_A2,
        heldout_tasks=POST_A2,
    ),
    model=ModelConfig(
        width=16,
        depth=2,
        mlp_width=32,
        num_heads=2,
        head_dim=8,
        num_buckets=8,
        max_distance=16,
        lru_width=16,
        lru_blocks=2,
        init_scale=1.0,
    ),
    pretrain=PretrainConfig(steps=8, batch_size=4),
    metacontroller=MetacontrollerConfig(
        code_dim=2,
        history_dim=8,
        embedding_dim=8,
        embedding_width=16,
        encoder_hidden=16,
        switch_hidden=16,
        decoder_hidden=8,
        rank=2,
    ),
    discover=DiscoverConfig(controlled_layer=1, steps=8, batch_size=8),
    reinforce=ReinforceConfig(iterations=8, batch_size=8, policy_width=16, policy_lru_blocks=2),
    raw_action=ReinforceConfig(method="raw_action", iterations=8, batch_size=8),
    evaluate=EvaluateConfig(episodes=16, steering_steps=4),
    runtime=RuntimeConfig(log_every=2, checkpoint_every=4, keep_checkpoints=2),
)

PRESETS = {config.name: config for config in (_SMOKE, _LAPTOP, _PAPER)}
