"""One inner episode of a trained CleanUp-lite run, as an animated GIF."""

from pathlib import Path

import jax

from agents.learning_aware.policies import sample
from envs.social.cleanup import CleanUp, CleanUpState
from envs.social.render import episode_gif
from internal_rl.errors import UserError
from internal_rl.runs.run_dir import RunDir
from internal_rl.social.config import SocialConfig
from internal_rl.social.pipeline import load_state, parts


def film(run: RunDir, path: Path, *, seed: int = 0) -> Path:
    """The first seed's agent 0 against agent 1, or against a naive learner's start if there is one agent.

    Raises:
        UserError: a run of another game, or without a checkpoint.
    """
    config = run.load_config(SocialConfig)
    game, policy, learner = parts(config)
    if not isinstance(game, CleanUp):
        raise UserError(f"{run.path} is a run of game '{config.game.name}'; allowed: cleanup")
    state = jax.tree.map(lambda x: x[0], load_state(run))
    pick = lambda tree, i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
    if config.pool.num_meta > 1:
        players = ((policy, pick(state.params, 0)), (policy, pick(state.params, 1)))
    else:
        players = ((policy, pick(state.params, 0)), (learner.policy, pick(state.naive, 0)))

    def play(key: jax.Array) -> CleanUpState:
        key_reset, key_steps = jax.random.split(key)
        start, obs = game.reset(key_reset)

        def step(carry, key):
            world, obs, carries = carry
            key_act, key_world = jax.random.split(key)
            uniform = jax.random.uniform(key_act, (2, 1))
            actions, after = [], []
            for i, (own, params) in enumerate(players):
                memory, logits, _ = own.step(params, obs[i : i + 1], carries[i])
                after.append(memory)
                actions.append(sample(uniform[i], logits)[0])
            following, result = game.step(key_world, world, jax.numpy.stack(actions))
            return (following, result.obs, tuple(after)), world

        carries = tuple(own.init_carry(1) for own, _ in players)
        keys = jax.random.split(key_steps, game.episode_length)
        return jax.lax.scan(step, (start, obs, carries), keys)[1]

    states = jax.device_get(jax.jit(play)(jax.random.key(seed)))
    path.parent.mkdir(parents=True, exist_ok=True)
    episode_gif(path, game, states)
    return path
