"""The rules of the token world: read a prompt, then write the chunks of a hidden task."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from envs import adapter
from envs.adapter import TimeStep
from envs.tokens.language import Language, encode_tasks


@struct.dataclass
class TokenState:
    """One episode; every field may carry leading batch dimensions.

    Attributes:
        prompt: the prompt's symbols, all different.
        tokens: tokens read and written so far, which are the observations so far; -1 after them.
        time: steps since the reset; `tokens[time]` is the last token.
        node: node of the grammar, what has been said of the chunk under way.
        progress: chunks of the task that are complete.
        wrong: a token has been written with which the text is no longer the beginning of the task's.
        task: index of the task.
    """

    prompt: Int[Array, "*b k"]
    tokens: Int[Array, "*b T1"]  # T + 1
    time: Int[Array, "*b"]
    node: Int[Array, "*b"]
    progress: Int[Array, "*b"]
    wrong: Bool[Array, "*b"]
    task: Int[Array, "*b"]


@dataclass(frozen=True)
class Writing:
    """One task set of the token world as functions on one episode. A start is a prompt and the index of a task.

    Observation: the last token, int32. The first k are the prompt, whatever is done in the meantime: the reset shows its
        first symbol, the k - 1 reading steps after it the others. The task is NOT observed.
    Action: the next token, int32. Ignored in the reading steps. A pause says nothing and is never wrong.
    Reward: float32, 1 when the text, pauses aside, is a spelling of every chunk of the task in order, else 0.
    Terminated: task complete; with `fail_early` also at the first token with which it cannot be completed any more.
    Truncated: after `horizon` steps; both flags are set if the last step also terminates.

    Args:
        language: chunks and alphabet.
        sequences: the task of an episode is drawn uniformly from these, one digit per chunk.
        horizon: T; at least what the longest text takes.
        fail_early: end the episode at the first wrong token, as pinpad does on a wrong colour; after it nothing pays any
            more. False: the verifier keeps its verdict until the horizon.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    language: Language
    sequences: tuple[str, ...]
    horizon: int
    fail_early: bool = True

    def __post_init__(self) -> None:
        encode_tasks(self.sequences, len(self.language.chunks))
        longest = max(self.sequences, key=self.language.longest)
        needed = self.reading_steps + self.language.longest(longest)
        if self.horizon < needed:
            raise ValueError(
                f"horizon={self.horizon}: allowed is {needed} or more, the steps of the longest text of task {longest}"
            )

    @property
    def reading_steps(self) -> int:
        """Steps in which the world shows the rest of the prompt: k - 1."""
        return self.language.prompt_length - 1

    @property
    def tasks(self) -> tuple[Int[np.ndarray, "tasks K"], Int[np.ndarray, " tasks"]]:
        """Sequences of chunks, padded with -1, and their lengths."""
        return _tasks(self.sequences, len(self.language.chunks))

    def starts(
        self, key: PRNGKeyArray, n: int
    ) -> tuple[tuple[Int[Array, "n k"], Int[Array, " n"]], dict[str, Array]]:
        """Uniform prompts [n, k] of different symbols and uniform tasks [n]; no metrics."""
        key_task, key_prompt = jax.random.split(key)
        task = jax.random.randint(key_task, (n,), 0, len(self.sequences), jnp.int32)
        order = permutations(key_prompt, n, self.language.symbols)
        return (order[:, : self.language.prompt_length], task), {}

    def reset(self, start: tuple[Int[Array, " k"], Int[Array, ""]]) -> tuple[TokenState, TimeStep]:
        """Begin with this prompt and this task."""
        prompt, task = start
        zero = jnp.int32(0)
        tokens = jnp.full((self.horizon + 1,), -1, jnp.int32).at[0].set(prompt[0])
        state = TokenState(
            prompt=jnp.asarray(prompt, jnp.int32),
            tokens=tokens,
            time=zero,
            node=zero,
            progress=zero,
            wrong=jnp.zeros((), bool),
            task=jnp.asarray(task, jnp.int32),
        )
        return state, adapter.first(tokens[0])

    def step(
        self, key: PRNGKeyArray, state: TokenState, action: Int[Array, ""]
    ) -> tuple[TokenState, TimeStep]:
        """Read or write one token; deterministic."""
        del key
        grammar = self.language.grammar
        said = state.prompt == action  # [k], at most one
        position = jnp.argmax(said).astype(jnp.int32)
        writing = (state.time >= self.reading_steps) & (action != self.language.pause)
        writing &= ~state.wrong & (state.progress < self._length(state))
        allowed = jnp.asarray(grammar.allowed)[self.goal(state), state.node, position]
        right = writing & jnp.any(said) & allowed
        complete = right & jnp.asarray(grammar.complete)[state.node, position]
        child = jnp.asarray(grammar.child)[state.node, position]
        token = jnp.where(
            state.time < self.reading_steps,
            state.prompt[jnp.minimum(state.time + 1, self.reading_steps)],
            action,
        )
        state = TokenState(
            prompt=state.prompt,
            tokens=state.tokens.at[state.time + 1].set(token, mode="drop"),
            time=state.time + 1,
            node=jnp.where(right, child, state.node),
            progress=state.progress + complete.astype(jnp.int32),
            wrong=state.wrong | (writing & ~right),
            task=state.task,
        )
        success = self.outcome(state)["success"]
        failed = state.wrong if self.fail_early else jnp.zeros((), bool)
        return state, TimeStep(
            obs=token,
            reward=(complete & success).astype(jnp.float32),
            terminated=success | failed,
            truncated=state.time >= self.horizon,
            final_obs=token,
            info={},
        )

    def goal(self, state: TokenState) -> Int[Array, ""]:
        """Chunk under way or next; after the last one, the last."""
        last = jnp.minimum(state.progress, self._length(state) - 1)
        return jnp.asarray(self.tasks[0])[state.task, last]

    def outcome(self, state: TokenState) -> dict[str, Array]:
        """`success`, and chunks completed before the first wrong token."""
        return {"success": state.progress >= self._length(state), "progress": state.progress}

    def _length(self, state: TokenState) -> Int[Array, ""]:
        return jnp.asarray(self.tasks[1])[state.task]


_tasks = lru_cache(maxsize=64)(encode_tasks)


def permutations(key: PRNGKeyArray, n: int, size: int) -> Int[Array, "n size"]:
    """Uniform permutations of 0..size-1."""
    return jnp.argsort(jax.random.uniform(key, (n, size)), axis=1).astype(jnp.int32)
