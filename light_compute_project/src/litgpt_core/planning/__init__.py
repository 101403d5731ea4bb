"""What a run would need, computed from its config: memory, time and money.

recipe       what is trained (Recipe) and on which devices (DeviceLayout)
activations  bytes that a forward pass keeps, from the parts of model/structure.py
memory       bytes on one device: the one estimate, for plan.py and for trainer.micro_batch_size=auto
step_time    seconds of an optimizer step
gpus         data sheets
plan         every strategy on every number of GPUs, and the best
command      the command line; tables: what it prints
"""
