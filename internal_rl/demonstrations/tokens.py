"""Demonstrations of the token world: its expert, generated on the device, a fresh batch for every step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from envs.tokens.expert import generate
from envs.tokens.world import TokenWorld
from internal_rl.demonstrations.contract import Batch
from internal_rl.demonstrations.packing import unpacked


@dataclass(frozen=True)
class TokenDemonstrations:
    """See `Demonstrations`. A row holds one text: all are about as long as the horizon.

    Args:
        world: the token world with the pretraining tasks.
        epsilon: hesitation of the behaviour that is not clean.
        one_spelling: of the clean behaviour, the expert takes the first of several spellings instead of drawing.
    """

    world: TokenWorld
    epsilon: float = 0.0
    one_spelling: bool = False

    @property
    def data(self) -> tuple:
        """Nothing is stored."""
        return ()

    def rows(
        self, data: Any, key: jax.Array, count: int, *, clean: bool
    ) -> tuple[Batch, dict[str, jax.Array]]:
        """Rows of `world.horizon` tokens. No metrics."""
        del data
        texts = generate(
            key,
            self.world,
            count,
            epsilon=0.0 if clean else self.epsilon,
            clean=clean and self.one_spelling,
        )
        layout = unpacked(texts.length, self.world.horizon)
        batch = Batch(
            obs=texts.obs[:, :-1],
            next_obs=texts.obs[:, 1:],
            action=texts.action,
            goal=texts.goal,
            subgoal=texts.subgoal,
            reset=layout.reset,
            valid=layout.valid,
            task=jnp.broadcast_to(texts.task[:, None], layout.valid.shape),
            source=texts,
        )
        return batch, {}
