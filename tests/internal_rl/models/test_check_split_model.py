"""`check_split_model` on networks that are right, and on one broken network for every rule."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import configs
from agents.distributions import diagonal_gaussian
from envs.world import ActionSpec, ObservationSpec
from internal_rl import build
from internal_rl.models.check import check_split_model

WIDTH = 4
OBS, ACTION = ObservationSpec(dim=3), ActionSpec(dim=2)


@dataclasses.dataclass(frozen=True)
class Means:
    """Two layers, each of which adds a decaying mean of its past input. Every mistake below is one change of it."""

    width: int = WIDTH
    depth: int = 2

    def init(self, key):
        keys = jax.random.split(key, 2)
        return {
            "embed": jax.random.normal(keys[0], (3, WIDTH)),
            "head": jax.random.normal(keys[1], (WIDTH, 5)),
        }

    def bind(self, params, layer):
        return Cut(self, params, layer)


@dataclasses.dataclass(frozen=True)
class Cut:
    net: Any
    params: Any
    layer: int

    @property
    def width(self):
        return self.net.width

    def init_carry(self, batch):
        zeros = jnp.zeros((batch, WIDTH))
        return (zeros,) * self.layer, (zeros,) * (2 - self.layer)

    def lower_step(self, obs, carry, reset=None):
        return self.layers(obs @ self.params["embed"], carry, reset)

    def upper_step(self, e, carry, reset=None):
        carry, x = self.layers(e, carry, reset)
        return carry, x @ self.params["head"]

    def lower(self, obs, carry=None, reset=None):
        return self.over_time(self.lower_step, obs, carry, reset, 0)

    def upper(self, e, carry=None, reset=None):
        return self.over_time(self.upper_step, e, carry, reset, 1)

    def action_distribution(self, out):
        return diagonal_gaussian(out[..., :2], jnp.zeros_like(out[..., :2]))

    def observation_log_prob(self, out, next_obs):
        return diagonal_gaussian(out[..., 2:], jnp.zeros_like(out[..., 2:])).log_prob(next_obs)

    def layers(self, x, carry, reset):
        after = []
        for old in carry:
            h = old if reset is None else jnp.where(reset[:, None], 0.0, old)
            after.append(0.5 * h + 0.5 * x)
            x = x + after[-1]
        return tuple(after), x

    def over_time(self, step, x, carry, reset, half):
        begin = self.init_carry(len(x))[half] if carry is None else carry
        reset = jnp.zeros(x.shape[:2], bool) if reset is None else reset
        inputs = (jnp.swapaxes(x, 0, 1), reset.T)
        last, out = jax.lax.scan(lambda c, i: step(i[0], c, i[1]), begin, inputs)
        return (None if carry is None else last), jnp.swapaxes(out, 0, 1)


def with_cut(**members):
    cut = type("Broken", (Cut,), members)

    class Network(Means):
        def bind(self, params, layer):
            return cut(self, params, layer)

    return Network()


def check(network, params=None):
    params = network.init(jax.random.key(0)) if params is None else params
    return check_split_model(network, params, OBS, ACTION)


def test_a_network_that_is_right():
    assert check(Means()) == []


@pytest.mark.parametrize("mixer", ["transformer", "hawk"])
def test_our_base_model_is_right(mixer):
    config = configs.get("gridworld-smoke")
    world = build.pretrain_world(config.env)
    network = build.base_network(dataclasses.replace(config.model, mixer=mixer), world)
    params = jax.jit(network.init)(jax.random.key(0))
    assert check_split_model(network, params, world.obs_spec, world.action_spec) == []


def wide(self, obs, carry=None, reset=None):
    carry, e = Cut.lower(self, obs, carry, reset)
    return carry, jnp.concatenate([e, e], axis=-1)


def growing(self, obs, carry, reset=None):
    carry, e = Cut.lower_step(self, obs, carry, reset)
    return tuple(jnp.concatenate([h, h], axis=1) for h in carry), e


def integers(self, out):
    return Integers(Cut.action_distribution(self, out))


@dataclasses.dataclass
class Integers:
    inner: Any

    def sample(self, *, seed):
        return jnp.round(self.inner.sample(seed=seed)).astype(jnp.int32)

    def log_prob(self, value):
        return self.inner.log_prob(value)


def peeking(self, obs, carry=None, reset=None):
    carry, e = Cut.lower(self, obs, carry, reset)
    return carry, e + 0.1 * jnp.roll(e, -1, axis=1) if carry is None and obs.shape[1] > 1 else e


def mixing(self, obs, carry=None, reset=None):
    carry, e = Cut.lower(self, obs, carry, reset)
    return carry, e + 0.1 * jnp.roll(e, 1, axis=0)


def mixing_step(self, obs, carry, reset=None):
    carry, e = Cut.lower_step(self, obs, carry, reset)
    return carry, e + 0.1 * jnp.roll(e, 1, axis=0)


def deaf(self, x, carry, reset):
    return Cut.layers(self, x, carry, None)


def late(self, x, carry, reset):
    # Forgets, but not all.
    soft = None if reset is None else jnp.zeros_like(reset)
    carry = tuple(h if reset is None else jnp.where(reset[:, None], 1.0, h) for h in carry)
    return Cut.layers(self, x, carry, soft)


def hurried(self, obs, carry, reset=None):
    carry, e = Cut.lower_step(self, obs, carry, reset)
    return carry, 1.1 * e


def forgetful(self, step, x, carry, reset, half):
    after, out = Cut.over_time(self, step, x, None, reset, half)
    return (after if carry is None else carry), out


def marked_step(self, e, carry, reset=None):
    carry, out = Cut.upper_step(self, e, carry, reset)
    return carry, out + 0.1 * self.layer


MISTAKES = {
    "width is '4'; expected is an integer of at least 1": Means(width="4"),
    "lower: e is float32 [2, 8, 8]; expected is float [2, 8, 4]": with_cut(lower=wide),
    "lower_step: carry[0] is float32 [2, 8]; expected is float32 [2, 4]": with_cut(
        lower_step=growing,
        lower=lambda self, obs, carry=None, reset=None: Cut.over_time(
            self, lambda *a: Cut.lower_step(self, *a), obs, carry, reset, 0
        ),
    ),
    "action_distribution: a sample is int32 [2, 8, 2]; expected is float32 [2, 8, 2]": with_cut(
        action_distribution=integers
    ),
    "observation_log_prob: log-probabilities are not finite": with_cut(
        observation_log_prob=lambda self, out, next_obs: jnp.log(-jnp.abs(out[..., 0]) - 1.0)
    ),
    "observations from step 4 on changed what came before": with_cut(lower=peeking),
    "another sequence of the batch changed a sequence's outputs": with_cut(
        lower=mixing, lower_step=mixing_step
    ),
    "what came before a reset at step 4 reached past it": with_cut(layers=deaf),
    "after a reset at step 4 outputs differ from a row that starts there": with_cut(layers=late),
    "step by step differs from the whole pass": with_cut(
        lower_step=hurried,
        lower=lambda self, obs, carry=None, reset=None: Cut.over_time(
            self, lambda *a: Cut.lower_step(self, *a), obs, carry, reset, 0
        ),
    ),
    "two passes split after 1 tokens differ from the whole one": with_cut(over_time=forgetful),
    "the model differs from its cut at 0": with_cut(upper_step=marked_step),
    "it raised ZeroDivisionError: division by zero": with_cut(
        init_carry=lambda self, batch: batch / 0
    ),
}


@pytest.mark.parametrize("says", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(says):
    problems = check(MISTAKES[says], Means().init(jax.random.key(0)))
    assert any(says in line for line in problems), problems
    assert all("\n" not in line for line in problems)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("head"), "params: head is missing; expected is float32 [4, 5]"),
        (lambda p: p.update(head=jnp.zeros((4, 6))), "params: head is float32 [4, 6]; expected is"),
        (lambda p: p.update(extra=jnp.zeros(1)), "params: extra is not among init's"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, says):
    params = Means().init(jax.random.key(0))
    change(params)
    assert says in check(Means(), params)[0]
