"""Weights -> better-behaved weights."""
