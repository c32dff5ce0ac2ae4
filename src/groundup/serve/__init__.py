"""Weights -> chat."""
