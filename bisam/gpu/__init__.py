"""Fifteen minutes on a GPU, used to the last second: what is right, how quick it is, and as many recorded runs as time allows.

``python -m bisam.gpu --minutes 15 --out DIR`` does all; the folder that :mod:`bisam.gpu.pack` writes does it on a machine that has torch,
torchvision and numpy and nothing else. Three stages follow each other, each in a process and a share of the time of its own, so that
none can take another down: :mod:`~bisam.gpu.correctness`, :mod:`~bisam.gpu.speed` and :mod:`~bisam.gpu.evidence`.
"""
