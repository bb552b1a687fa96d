"""Presets of the token world: a decoder in Hugging Face layout writes chunks of tokens (docs/tokens.md)."""

from envs.tokens.tables import FOUR, POST_FOUR, orders
from internal_rl.config import (
    Config,
    DecoderConfig,
    DiscoverConfig,
    EvaluateConfig,
    MetacontrollerConfig,
    OptimizerConfig,
    PretrainConfig,
    ReinforceConfig,
    RuntimeConfig,
    TokenConfig,
)

# The four stages in minutes on two CPU cores.
_LAPTOP = Config(
    name="token-laptop",
    env=TokenConfig(
        num_chunks=4, symbols=12, horizon=23, pretrain_tasks=FOUR, heldout_tasks=POST_FOUR
    ),
    model=DecoderConfig(
        family="gpt2",
        width=64,
        depth=4,
        num_heads=4,
        mlp_width=256,
        max_positions=32,
        init_std=0.08,
    ),
    # λ = 0: while the prompt is read, what is said (the pause) is not what comes next, and there is one head for both.
    pretrain=PretrainConfig(
        steps=4000,
        batch_size=64,
        packing=False,
        obs_loss_weight=0.0,
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            weight_decay=0.03,
            schedule="cosine",
            warmup_steps=200,
            grad_clip=1.0,
        ),
    ),
    metacontroller=MetacontrollerConfig(gate="hard", input_norm=True),
    discover=DiscoverConfig(
        controlled_layer=2,
        steps=6000,
        batch_size=64,
        kl_weight=0.15,
        kl_warmup_start=0.005,
        kl_hold_steps=1500,
        kl_warmup_steps=1000,
        tail_steps=2500,
        tail_kl_weight=0.003,
        encoder_view="symmetric",
        optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.03, grad_clip=1.0),
    ),
    reinforce=ReinforceConfig(
        iterations=250,
        batch_size=512,
        epochs=2,
        policy_width=64,
        initial_std=1.5,
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.0),
    ),
    raw_action=ReinforceConfig(
        method="raw_action",
        iterations=250,
        batch_size=512,
        epochs=2,
        optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.0),
    ),
    evaluate=EvaluateConfig(episodes=1024, steering_steps=1500),
    runtime=RuntimeConfig(log_every=10, checkpoint_every=500, keep_checkpoints=2),
)

# Every stage in seconds. It learns nothing; tests use it.
_SMOKE = Config(
    name="token-smoke",
    env=TokenConfig(
        num_chunks=3,
        symbols=6,
        horizon=18,
        pretrain_tasks=orders(3, 2, unseen=("01", "12")),
        heldout_tasks=("012",),
    ),
    model=DecoderConfig(
        family="gpt2", width=16, depth=2, num_heads=2, mlp_width=32, max_positions=32, init_std=0.1
    ),
    pretrain=PretrainConfig(steps=8, batch_size=4, packing=False, obs_loss_weight=0.0),
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

PRESETS = {config.name: config for config in (_SMOKE, _LAPTOP)}
