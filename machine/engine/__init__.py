"""The driver of runs: decide, perform, append, and nothing else."""
