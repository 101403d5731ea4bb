"""YAML and the command line to one checked, frozen `TrainConfig`."""
