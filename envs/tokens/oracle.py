"""Entropies that bound every base model and every metacontroller, from the expert's own probabilities.

- `expert`: the expert's entropy given its task, from the choice among spellings; what perfect steering pays.
- `bayes`: what a Bayes-optimal predictor pays that must infer the task from the text so far.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from envs.tokens.expert import Texts, generate
from envs.tokens.writing import Writing


def oracle_nll(
    key: PRNGKeyArray, world: Writing, count: int, epsilon: float = 0.0
) -> dict[str, Float[Array, ""]]:
    """Monte-Carlo estimate over `count` fresh texts, in nats per step, reading included, with the mean number of steps.

    Every step's probability is exact; the estimate is over which texts occur.
    """
    texts = generate(key, world, count, epsilon)
    expert, bayes, valid = per_step(world, texts, epsilon)
    steps = jnp.sum(valid, dtype=jnp.float32)
    return {
        "expert": jnp.sum(expert) / steps,
        "bayes": jnp.sum(bayes) / steps,
        "length": jnp.mean(texts.length.astype(jnp.float32)),
    }


def per_step(
    world: Writing, texts: Texts, epsilon: float = 0.0
) -> tuple[Float[Array, "n T"], Float[Array, "n T"], Bool[Array, "n T"]]:
    """−log p of every action given the task and the past, and given the past alone; 0 where not valid.

    The prior over tasks is uniform. A text can be read in one way only, so all tasks that are still possible stand at the
    same place of it, and the posterior is one weight per task.
    """
    grammar = world.language.grammar
    sequences, lengths = (jnp.asarray(x) for x in world.tasks)
    choice, child = jnp.asarray(grammar.choice), jnp.asarray(grammar.child)
    complete = jnp.asarray(grammar.complete)
    noise = jnp.float32(epsilon)

    def one_text(obs, action, task, length):
        prompt = obs[: world.language.prompt_length]

        def step(carry, inputs):
            log_weight, node, progress = carry
            time, token = inputs
            position = jnp.argmax(prompt == token)
            pause = token == world.language.pause
            chunk = jnp.take_along_axis(
                sequences, jnp.minimum(progress, lengths - 1)[:, None], axis=1
            )
            said = choice[chunk[:, 0], node, position]  # [tasks]
            probs = jnp.where(pause, noise, (1 - noise) * said)
            probs = jnp.where(time < world.reading_steps, pause.astype(jnp.float32), probs)
            active = time < length
            # That the text goes on is known: tasks that would be complete here are out, and nobody pays for it.
            log_weight = jnp.where(progress < lengths, log_weight, -jnp.inf)
            before = jax.nn.logsumexp(log_weight)
            log_weight = jnp.where(active, log_weight + jnp.log(probs), log_weight)
            bayes = jnp.where(active, before - jax.nn.logsumexp(log_weight), 0.0)
            moved = active & ~pause
            progress += (moved & complete[node, position]).astype(jnp.int32)
            node = jnp.where(moved, child[node, position], node)
            expert = jnp.where(active, -jnp.log(probs[task]), 0.0)
            return (log_weight, node, progress), (expert, bayes, active)

        times = jnp.arange(world.horizon, dtype=jnp.int32)
        start = (jnp.zeros(lengths.shape, jnp.float32), jnp.int32(0), jnp.int32(0))
        return jax.lax.scan(step, start, (times, action))[1]

    return jax.vmap(one_text)(texts.obs, texts.action, texts.task, texts.length)
