"""Tables of many trainings: all methods side by side, ablations, experiments, costs, and finished checkpoints."""
