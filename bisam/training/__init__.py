"""Runs: data, networks, the loop, and checkpoints that it goes on from."""

from .train import History, Run, fit

__all__ = ["History", "Run", "fit"]
