"""Trains ZSE-SBIR (CVPR 2023), and the default network, which is derived from it."""
