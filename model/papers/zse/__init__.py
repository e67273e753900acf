"""Training of ZSE-SBIR (CVPR 2023), and of the default network, which goes on from it."""
