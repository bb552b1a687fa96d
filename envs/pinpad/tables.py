"""Task sets of the paper as strings, one digit per colour (App. A, Tables A1 and A2). Imports nothing."""

TABLE_A1 = (
    *("014501", "014523", "016723", "230145", "236723", "236745", "450145", "450167"),
    *("452367", "670123", "672367", "674501", "016745", "230167", "450123", "674523"),
)
"""Pretraining tasks of gridworld-pinpad (Table A1), made of the pairs 01, 23, 45 and 67."""

POST_A1 = ("012345670123",)
"""Post-training task of gridworld-pinpad."""

TABLE_A2 = (
    *("032", "103", "210", "321", "020", "021", "031", "102"),
    *("131", "132", "202", "203", "213", "310", "313", "320"),
)
"""Pretraining tasks of ant-pinpad (Table A2); our laptop presets use them on the gridworld too."""

POST_A2 = ("0123",)
"""Post-training task of ant-pinpad."""
