"""The token world as a `World`: write the chunks of a hidden task, and a verifier pays for the whole of it."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from envs.tokens.expert import Texts
from envs.tokens.oracle import oracle_nll
from envs.tokens.render import colour, render_text
from envs.tokens.writing import Writing, permutations
from envs.world import ActionSpec, ObservationSpec


@dataclass(frozen=True)
class TokenWorld(Writing):
    """See `envs.world.World`, and `Writing` for the rules. Observations and actions are tokens, goals are chunks."""

    @property
    def obs_spec(self) -> ObservationSpec:
        """A token."""
        return ObservationSpec(num_tokens=self.language.num_tokens)

    @property
    def action_spec(self) -> ActionSpec:
        """A token."""
        return ActionSpec(num_actions=self.language.num_tokens)

    @property
    def num_goals(self) -> int:
        """C chunks."""
        return len(self.language.chunks)

    @property
    def reward_kinds(self) -> tuple[float, ...]:
        """Every reward but 0."""
        return (1.0,)

    def view(self, key: PRNGKeyArray, source: Texts, time: Int[Array, "R V"]) -> Int[Array, "R V"]:
        """Tokens of texts [R] at `time`, the symbols of each text renamed by a permutation drawn anew: all that a text
        says about chunks stays, which symbols spell them does not."""
        renamed = permutations(key, time.shape[0], self.language.symbols)
        pause = jnp.full((time.shape[0], 1), self.language.pause, jnp.int32)
        tokens = jnp.take_along_axis(source.obs, time, axis=1)
        return jnp.take_along_axis(jnp.concatenate([renamed, pause], axis=1), tokens, axis=1)

    def oracle(self, key: PRNGKeyArray, count: int) -> dict[str, Float[Array, ""]]:
        """Nats per step that the best predictors of the expert pay (`envs.tokens.oracle`)."""
        return oracle_nll(key, self, count)

    def draw(self, state: Any) -> np.ndarray:
        """Picture of a state, uint8 [H, W, 3] (`envs.tokens.render`)."""
        return render_text(self, state)

    def name_task(self, i: int) -> str:
        """Chunks in order."""
        return " ".join(self.name_goal(int(chunk)) for chunk in self.sequences[i])

    def name_goal(self, i: int) -> str:
        """The chunk's name."""
        return self.language.chunks[i].name

    def goal_colour(self, i: int) -> tuple[int, int, int]:
        """RGB."""
        return colour(i)
