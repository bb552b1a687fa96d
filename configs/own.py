"""Presets for worlds of a user's own (docs/own-world.md): sizes that train in minutes on two CPU cores."""

from internal_rl.config import (
    Config,
    DiscoverConfig,
    EvaluateConfig,
    MetacontrollerConfig,
    ModelConfig,
    OptimizerConfig,
    OwnWorldConfig,
    PretrainConfig,
    ReinforceConfig,
    RuntimeConfig,
)

_LAPTOP = Config(
    name="own-laptop",
    env=OwnWorldConfig(),
    model=ModelConfig(
        mixer="transformer",
        width=64,
        depth=3,
        mlp_width=128,
        num_heads=4,
        head_dim=16,
        max_distance=64,
        lru_width=64,
        lru_blocks=4,
        init_scale=1.0,
    ),
    pretrain=PretrainConfig(
        steps=1500,
        batch_size=32,
        packing=True,
        obs_loss_weight=0.01,
        optimizer=OptimizerConfig(
            learning_rate=2e-3, schedule="cosine", warmup_steps=100, grad_clip=1.0
        ),
    ),
    metacontroller=MetacontrollerConfig(gate="hard", input_norm=True),
    discover=DiscoverConfig(
        controlled_layer=1,
        steps=4000,
        batch_size=64,
        kl_weight=0.15,
        kl_warmup_start=0.005,
        kl_hold_steps=1500,
        kl_warmup_steps=800,
        tail_steps=1000,
        tail_kl_weight=0.01,
        encoder_view="symmetric",
        optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.03, grad_clip=1.0),
    ),
    reinforce=ReinforceConfig(
        iterations=100,
        batch_size=256,
        epochs=2,
        policy_width=64,
        initial_std=1.5,
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.0),
    ),
    raw_action=ReinforceConfig(
        method="raw_action",
        iterations=100,
        batch_size=256,
        epochs=2,
        optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.0),
    ),
    evaluate=EvaluateConfig(episodes=1024, steering_steps=500),
    runtime=RuntimeConfig(log_every=20, checkpoint_every=500, keep_checkpoints=2),
)

PRESETS = {"own-laptop": _LAPTOP}
