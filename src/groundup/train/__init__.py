"""Rows to weights: one training loop for every method, its optimizers and schedules, and pretraining."""
