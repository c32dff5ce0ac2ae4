"""Alignment: fine-tuning, reward models and PPO."""
