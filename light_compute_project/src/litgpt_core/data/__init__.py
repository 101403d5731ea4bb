"""From text on a disk to (inputs, targets) batches: sources, split, prepare, dataset, module."""
