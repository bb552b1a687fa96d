"""Embedded Bayesian agents in games that are solved exactly (MUPI). Spec sections 11.4 to 11.7."""

from internal_rl.social.config import EmbeddedConfig

_TWIN = EmbeddedConfig(name="mupi-twin")
_HALF_DEFECT = EmbeddedConfig(
    name="mupi-half-defect",
    policies="half_defect",
    alphas=(0.30, 1 / 3, 0.34, 0.35, 0.40, 0.50, 0.51),
)
_STAG_HUNT = EmbeddedConfig(name="mupi-stag-hunt", game="stag_hunt")
_PLANNER = EmbeddedConfig(
    name="mupi-planner",
    policies="memory_one",
    alphas=(0.3, 0.4, 0.45),
    rounds=8,
    depth=3,
    discount=0.9,
    horizon=4,
)

PRESETS = (_TWIN, _HALF_DEFECT, _STAG_HUNT, _PLANNER)
