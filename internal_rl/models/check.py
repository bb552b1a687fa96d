"""Whether a base model keeps the contract of `internal_rl.models.contract`, for ours and a user's alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.world import ActionSpec, ObservationSpec
from internal_rl.models.contract import Params, SplitNetwork


def check_split_model(
    network: SplitNetwork,
    params: Params,
    obs_spec: ObservationSpec,
    action_spec: ActionSpec,
    *,
    layers: Sequence[int] | None = None,
    batch: int = 2,
    length: int = 8,
    seed: int = 0,
    tolerance: float = 1e-4,
) -> list[str]:
    """Try a network on random observations; every problem is one line that says what was found and what is expected.

    Rules, at every cut:
    - `params` has the structure, shapes and dtypes of `init`'s result;
    - e is float [n, T, width]; carries are batch first, and keep their shapes and dtypes after a step;
    - the whole pass, step by step, and split anywhere with the carry handed on give the same, with resets inside;
    - the future does not reach the past; sequences of a batch do not reach each other;
    - a reset begins anew: nothing from before it matters after it, and what follows is as at the start of a row;
    - `upper(e)` without a change is the model: the same for every cut;
    - actions are drawn with the world's shape and dtype; log-probabilities are finite, one per token;
    - the same input gives the same output.

    Args:
        layers: cuts to try; None: all.
        batch, length: n and T of the observations.
        tolerance: by how much outputs may differ, absolutely and relatively.

    Returns:
        Problems; none if all is well. Never raises because of the model.
    """
    for name in ("width", "depth"):
        value = getattr(network, name, None)
        if not isinstance(value, int) or value < 1:
            return [f"{name} is {value!r}; expected is an integer of at least 1"]
    problems = _params(network, params)
    if problems:
        return problems
    obs = _observations(obs_spec, batch, length, seed)
    cuts = range(network.depth + 1) if layers is None else layers
    reference = None
    for layer in cuts:
        trial = _Trial(network, params, layer, obs, action_spec, seed, tolerance)
        lines, log_prob = trial.run()
        if not lines and reference is not None and not trial.close(log_prob, reference):
            lines = [
                f"the model differs from its cut at {cuts[0]} by {_gap(log_prob, reference):.2g} nats; expected is the "
                f"same model"
            ]
        reference = log_prob if reference is None else reference
        problems += [f"cut at {layer}: {line}" for line in lines]
    return problems


@dataclass(frozen=True)
class _Trial:
    """One cut."""

    network: SplitNetwork
    params: Params
    layer: int
    obs: np.ndarray
    action_spec: ActionSpec
    seed: int
    tolerance: float

    def run(self) -> tuple[list[str], Any]:
        """Problems, and the log-probabilities of fixed actions [n, T] without resets."""
        try:
            lines = self.shapes()
            if lines:  # nothing else could be compared
                return lines, None
            whole = self.whole(self.obs)
            lines = self.heads(whole) + self.carries()
            if lines:
                return lines, None
            for rule in (
                self.repeats,
                self.stepwise,
                self.splits,
                self.causal,
                self.rows,
                self.resets,
            ):
                lines += rule()
            return lines, self.log_prob(whole)
        except Exception as error:  # whatever a user's model raises is what is wrong with it
            first = str(error).strip().partition("\n")[0]
            return [f"it raised {type(error).__name__}: {first}"], None

    # What is computed

    def model(self, params: Params) -> Any:
        return self.network.bind(params, self.layer)

    @cached_property
    def _whole(self) -> Callable:
        def run(params, obs, reset):
            model = self.model(params)
            return model.upper(model.lower(obs, None, reset)[1], None, reset)[1]

        return jax.jit(run)

    def whole(self, obs: np.ndarray, reset: np.ndarray | None = None) -> Any:
        """Outputs of one pass."""
        return self._whole(
            self.params, jnp.asarray(obs), None if reset is None else jnp.asarray(reset)
        )

    def pieces(self, obs: np.ndarray, reset: np.ndarray, cuts: Sequence[int]) -> Any:
        """Outputs of several passes, each with the carry of the one before."""

        def run(params, carries, obs, reset):
            model = self.model(params)
            lower, e = model.lower(obs, carries[0], reset)
            upper, out = model.upper(e, carries[1], reset)
            return (lower, upper), out

        run, carries, parts = jax.jit(run), self.fresh(), []
        for begin, end in zip((0, *cuts), (*cuts, obs.shape[1]), strict=True):
            here = slice(begin, end)
            piece, marks = jnp.asarray(obs[:, here]), jnp.asarray(reset[:, here])
            carries, out = run(self.params, carries, piece, marks)
            parts.append(self.log_prob(out, here))
        return np.concatenate(parts, axis=1)

    def steps(self, obs: np.ndarray, reset: np.ndarray) -> Any:
        """Outputs step by step."""

        def run(params, carries, obs, reset):
            model = self.model(params)
            lower, e = model.lower_step(obs, carries[0], reset)
            upper, out = model.upper_step(e, carries[1], reset)
            return (lower, upper), out

        run, carries, parts = jax.jit(run), self.fresh(), []
        for t in range(obs.shape[1]):
            carries, out = run(
                self.params, carries, jnp.asarray(obs[:, t]), jnp.asarray(reset[:, t])
            )
            parts.append(self.log_prob(out, t))
        return np.stack(parts, axis=1)

    def fresh(self) -> tuple:
        return jax.jit(lambda params: self.model(params).init_carry(len(self.obs)))(self.params)

    @cached_property
    def _log_prob(self) -> Callable:
        def run(params, out, actions, following):
            model = self.model(params)
            spoken = model.action_distribution(out).log_prob(actions)
            return spoken, model.observation_log_prob(out, following)

        return jax.jit(run)

    def log_prob(self, out: Any, when: Any = slice(None)) -> np.ndarray:
        """Of fixed actions and observations at these steps: what outputs are compared by. [n, T, 2]"""
        actions = _actions(self.action_spec, *self.obs.shape[:2], seed=self.seed)[:, when]
        following = np.roll(self.obs, -1, axis=1)[:, when]
        found = self._log_prob(self.params, out, jnp.asarray(actions), jnp.asarray(following))
        return np.stack(jax.device_get(found), axis=-1)

    def close(self, a: np.ndarray, b: np.ndarray) -> bool:
        return np.allclose(a, b, rtol=self.tolerance, atol=self.tolerance)

    # Rules

    def shapes(self) -> list[str]:
        n, steps = self.obs.shape[:2]
        e = jax.eval_shape(lambda p, x: self.model(p).lower(x)[1], self.params, self.obs)
        wanted = (n, steps, self.network.width)
        if (
            not hasattr(e, "shape")
            or e.shape != wanted
            or not jnp.issubdtype(e.dtype, jnp.floating)
        ):
            return [f"lower: e is {_text(e)}; expected is float {list(wanted)}"]
        return []

    def carries(self) -> list[str]:
        lines = []
        carries = self.fresh()
        n = len(self.obs)

        def lower(params, x, carry):
            return self.model(params).lower_step(x, carry)

        def upper(params, e, carry):
            return self.model(params).upper_step(e, carry)

        for half, step, carry, x in (
            ("lower", lower, carries[0], self.obs[:, 0]),
            ("upper", upper, carries[1], jnp.zeros((n, self.network.width))),
        ):
            after = jax.eval_shape(step, self.params, x, carry)[0]
            if jax.tree.structure(after) != jax.tree.structure(carry):
                lines.append(
                    f"{half}_step: the carry is {jax.tree.structure(after)}; expected is init_carry's, "
                    f"{jax.tree.structure(carry)}"
                )
                continue
            pairs = zip(
                jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(after), strict=True
            )
            for (path, old), new in pairs:
                if (old.shape, old.dtype) != (new.shape, new.dtype):
                    lines.append(
                        f"{half}_step: carry{jax.tree_util.keystr(path)} is {_text(new)}; expected is {_text(old)}, as "
                        "init_carry gives it"
                    )
        return lines

    def heads(self, whole: Any) -> list[str]:
        n, steps = self.obs.shape[:2]
        action = self.model(self.params).action_distribution(whole).sample(seed=jax.random.key(0))
        wanted = (n, steps, *self.action_spec.shape)
        if (action.shape, action.dtype) != (wanted, jnp.dtype(self.action_spec.dtype)):
            expected = f"{jnp.dtype(self.action_spec.dtype).name} {list(wanted)} by action_spec"
            return [f"action_distribution: a sample is {_text(action)}; expected is {expected}"]
        log_prob = self.log_prob(whole)
        for i, name in enumerate(("action_distribution", "observation_log_prob")):
            if log_prob[..., i].shape != (n, steps):
                found = list(log_prob[..., i].shape)
                return [f"{name}: log-probabilities are {found}; expected is {[n, steps]}"]
            if not np.isfinite(log_prob[..., i]).all():
                return [f"{name}: log-probabilities are not finite; expected are finite ones"]
        return []

    def repeats(self) -> list[str]:
        first, second = (self.log_prob(self.whole(self.obs)) for _ in range(2))
        if not np.array_equal(first, second):
            return ["the same observations gave other outputs; expected are the same"]
        return []

    def stepwise(self) -> list[str]:
        reset = self.marks()
        whole, steps = self.log_prob(self.whole(self.obs, reset)), self.steps(self.obs, reset)
        if not self.close(whole, steps):
            gap = _gap(whole, steps)
            return [
                f"step by step differs from the whole pass by {gap:.2g} nats; expected is the same"
            ]
        return []

    def splits(self) -> list[str]:
        length, reset = self.obs.shape[1], self.marks()
        whole = self.log_prob(self.whole(self.obs, reset))
        for cut in (1, length // 2, length - 1):
            found = self.pieces(self.obs, reset, [cut])
            if not self.close(whole, found):
                return [
                    f"two passes split after {cut} tokens differ from the whole one by {_gap(whole, found):.2g} nats; "
                    "expected is the same"
                ]
        return []

    def causal(self) -> list[str]:
        half = self.obs.shape[1] // 2
        changed = self.changed(slice(half, None))
        before = self.spoken(self.whole(self.obs))[:, :half]
        after = self.spoken(self.whole(changed))[:, :half]
        if not self.close(before, after):
            return [
                f"observations from step {half} on changed what came before; expected is a causal model"
            ]
        return []

    def rows(self) -> list[str]:
        if len(self.obs) < 2:
            return []
        changed = self.obs.copy()
        changed[0] = self.changed(slice(None))[0]
        before, after = (self.spoken(self.whole(x))[1:] for x in (self.obs, changed))
        if not self.close(before, after):
            return ["another sequence of the batch changed a sequence's outputs; expected is none"]
        return []

    def resets(self) -> list[str]:
        half = self.obs.shape[1] // 2
        reset = np.zeros(self.obs.shape[:2], bool)
        reset[:, [0, half]] = True
        kept = self.spoken(self.whole(self.obs, reset))[:, half:]
        other = self.spoken(self.whole(self.changed(slice(None, half)), reset))[:, half:]
        if not self.close(kept, other):
            return [f"what came before a reset at step {half} reached past it; expected is nothing"]
        alone = self.spoken(self.whole(self.obs[:, half:]), half)
        if not self.close(kept, alone):
            return [
                f"after a reset at step {half} outputs differ from a row that starts there by {_gap(kept, alone):.2g} "
                "nats; expected is the same"
            ]
        return []

    def marks(self) -> np.ndarray:
        """Resets: at the start of every row, and at other places in every row."""
        reset = np.zeros(self.obs.shape[:2], bool)
        reset[:, 0] = True
        for i in range(len(reset)):
            reset[i, 2 + i % (self.obs.shape[1] - 2)] = True
        return reset

    def changed(self, when: slice) -> np.ndarray:
        other = np.roll(self.obs, 1, axis=1)[:, ::-1].copy()
        new = self.obs.copy()
        new[:, when] = other[:, when]
        return new

    @cached_property
    def _spoken(self) -> Callable:
        def run(params, out, actions):
            return self.model(params).action_distribution(out).log_prob(actions)

        return jax.jit(run)

    def spoken(self, out: Any, begin: int = 0) -> np.ndarray:
        """Log-probabilities of fixed actions, which do not depend on the observations [n, T]."""
        actions = _actions(self.action_spec, *self.obs.shape[:2], seed=self.seed)[:, begin:]
        return jax.device_get(self._spoken(self.params, out, jnp.asarray(actions)))


def _params(network: SplitNetwork, params: Params) -> list[str]:
    try:
        wanted = jax.eval_shape(network.init, jax.random.key(0))
    except Exception as error:  # a user's code
        first = str(error).strip().partition("\n")[0]
        return [f"init raised {type(error).__name__}: {first}"]
    named: Callable = lambda tree: {  # noqa: E731
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    found, expected = named(params), named(wanted)
    for name, leaf in expected.items():
        if name not in found:
            return [f"params: {name} is missing; expected is {_text(leaf)}, as init gives it"]
        if (found[name].shape, found[name].dtype) != (leaf.shape, leaf.dtype):
            return [
                f"params: {name} is {_text(found[name])}; expected is {_text(leaf)}, as init gives it"
            ]
    extra = [name for name in found if name not in expected]
    return [f"params: {extra[0]} is not among init's; expected is nothing else"] if extra else []


def _observations(spec: ObservationSpec, n: int, steps: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if spec.num_tokens:
        return rng.integers(spec.num_tokens, size=(n, steps)).astype(np.int32)
    if spec.factor_sizes:
        blocks = [
            np.eye(s, dtype=np.float32)[rng.integers(s, size=(n, steps))] for s in spec.factor_sizes
        ]
        return np.concatenate(blocks, axis=-1)
    return rng.standard_normal((n, steps, spec.dim)).astype(np.float32)


def _actions(spec: ActionSpec, n: int, steps: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    if spec.num_actions:
        return rng.integers(spec.num_actions, size=(n, steps)).astype(np.int32)
    return rng.uniform(spec.low, spec.high, (n, steps, spec.dim)).astype(np.float32)


def _gap(a: Any, b: Any) -> float:
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


def _text(value: Any) -> str:
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{value.dtype} {list(value.shape)}"
