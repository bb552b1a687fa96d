"""Values of COCOA's figures (arXiv 2306.16803v2), read off its vector graphics: ±0.01 on fractions,
±0.7 dB on decibel plots."""

LENGTHS = (23, 43, 63, 83, 103)

# Fig. 1B left: mean treasure fraction over 10,000 batches, learned models.
FIG1_TREASURE = {
    "cocoa_reward": (0.78, 0.82, 0.73, 0.73, 0.69),
    "cocoa_feature": (0.73, 0.82, 0.74, 0.76, 0.68),
    "advantage": (0.75, 0.63, 0.45, 0.30, 0.24),
    "trajectory_cv": (0.73, 0.60, 0.43, 0.27, 0.19),
    "q_critic": (0.68, 0.55, 0.38, 0.34, 0.24),
    "hca_plus": (0.32, 0.21, 0.14, 0.14, 0.15),
    "hca_return": (0.12, 0.05, 0.04, 0.07, 0.04),
    "reinforce": (0.07, 0.05, 0.03, 0.02, 0.02),
}
# Fig. 1B right: SNR in dB in shadow training, learned models.
FIG1_SNR = {
    "cocoa_reward": (0, 0, 0, 0, 0),
    "cocoa_feature": (-2, -1, -1, -2, -1.5),
    "q_critic": (-8, -12, -14, -16, -17),
    "advantage": (-30, -33, -35, -36, -37),
    "hca_return": (-33, -34, -34, -33, -37),
    "trajectory_cv": (-35, -38, -40, -41, -44),
    "hca_plus": (-41, -45, -49, -51, -54),
    "reinforce": (-45, -50, -54, -57, -59),
}
# Fig. 3B: treasure fraction at length 103 after these batches, exact and learned models.
FIG3_BATCHES = (2000, 4000, 6000, 8000, 10_000)
FIG3_EXACT = {
    "cocoa_reward": (1.0, 1.0, 1.0, 1.0, 1.0),
    "q_critic": (1.0, 1.0, 1.0, 1.0, 1.0),
    "advantage": (0.13, 0.30, 0.57, 0.74, 0.83),
    "trajectory_cv": (0.16, 0.47, 0.65, 0.69, 0.83),
    "hca_return": (0.18, 0.28, 0.34, 0.37, 0.43),
    "hca_plus": (0.11, 0.18, 0.20, 0.24, 0.31),
}
FIG3_LEARNED = {
    "cocoa_reward": (0.32, 0.83, 0.91, 0.93, 0.94),
    "cocoa_feature": (0.36, 0.80, 0.83, 0.92, 0.93),
    "q_critic": (0.05, 0.23, 0.37, 0.46, 0.53),
    "advantage": (0.02, 0.09, 0.25, 0.50, 0.66),
    "trajectory_cv": (0.04, 0.20, 0.31, 0.48, 0.61),
    "hca_return": (0.02, 0.03, 0.06, 0.10, 0.13),
    "hca_plus": (0.10, 0.13, 0.20, 0.18, 0.25),
}
# Fig. 2B: normalised variance in dB in the tree by state overlap 0..6.
FIG2 = {
    "reinforce": (14.8, 14.8, 15.3, 14.9, 15.0, 14.5, 14.1),
    "hca_plus": (14.8, 14.7, 15.0, 14.4, 14.3, 13.6, 12.9),
    "groups_32": (13.6, 13.5, 13.8, 13.4, 13.5, 12.7, 11.9),
    "groups_4": (12.3, 12.2, 12.7, 12.3, 12.4, 11.9, 11.4),
    "cocoa_reward": (11.5, 11.4, 11.9, 11.5, 11.6, 11.1, 10.6),
}
# Fig. 7: the same at overlap 3, by number of groups.
FIG7_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128)
FIG7_LINES = {"hca_plus": 14.5, "reinforce": 14.9}
FIG7 = (11.6, 11.8, 12.4, 12.7, 13.2, 13.4, 14.3, 14.4)
# Fig. 4B: fraction of correct choices in task interleaving after these batches.
FIG4_BATCHES = (2000, 4000, 10_000)
FIG4 = {
    "cocoa_reward": (0.86, 0.95, 0.97),
    "cocoa_feature": (0.88, 0.96, 0.97),
    "q_critic": (0.83, 0.87, 0.89),
    "hca_plus": (0.76, 0.81, 0.88),
    "trajectory_cv": (0.78, 0.84, 0.87),
    "advantage": (0.80, 0.83, 0.85),
    "reinforce": (0.79, 0.81, 0.85),
}
# Fig. 5: treasure fraction under reward aliasing after these batches.
FIG5_BATCHES = (4000, 10_000)
FIG5 = {
    "cocoa_feature": (0.49, 0.75),
    "q_critic": (0.07, 0.24),
    "cocoa_reward": (0.20, 0.22),
    "advantage": (0.02, 0.21),
    "hca_plus": (0.08, 0.13),
}
# Fig. 9: treasure fraction at length 103 after 10,000 batches.
FIG9_BATCHES = (10_000,)
FIG9 = {"hca": (0.18,), "hca_plus": (0.23,)}
# Fig. 12: SNR in dB of the first decision with exact models perturbed by these.
# Q-critic falls by 20 dB per decade; only the ends of the advantage's line are known.
FIG12 = {
    "cocoa_reward": {0.001: -0.6, 0.003: -1.7, 0.01: -5.3, 0.03: -12.2, 0.1: -21.9, 0.3: -31.5},
    "q_critic": {0.001: 22.0, 0.003: 12.5, 0.01: 2.0, 0.03: -7.5, 0.1: -18.0, 0.3: -27.0},
    "advantage": {0.001: -34.8, 0.3: -38.4},
    "hca_plus": {0.001: -43.4, 0.003: -43.4, 0.01: -43.4, 0.03: -43.4, 0.1: -43.4, 0.3: -43.4},
}
# Fig. 10: treasure fraction around the switch at batch 60,000; lower afterwards is better.
FIG10_BATCHES = (59_900, 60_250, 60_500, 61_000, 62_000, 65_000)
FIG10 = {
    "cocoa_feature": (0.91, 0.13, 0.05, 0.02, 0.01, 0.00),
    "cocoa_reward": (0.93, 0.39, 0.15, 0.07, 0.03, 0.02),
    "q_critic": (0.90, 0.52, 0.28, 0.12, 0.02, 0.01),
    "advantage": (0.96, 0.77, 0.54, 0.28, 0.18, 0.12),
    "hca_plus": (0.89, 0.89, 0.88, 0.84, 0.77, 0.65),
    "reinforce": (0.78, 0.77, 0.76, 0.67, 0.59, 0.41),
}
