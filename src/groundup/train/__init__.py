"""Training: the loop of all methods, optimizers, schedules, checkpoints, and pretraining."""
