"""The only room that knows the Trainer. `runner.run` is the whole story of a training run, top to bottom."""
