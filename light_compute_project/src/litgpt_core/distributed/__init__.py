"""Several processes: launching them, their process group, sharding, requeueing under SLURM."""
