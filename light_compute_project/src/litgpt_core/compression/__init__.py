"""From a checkpoint directory to a smaller one: recipes of steps, their methods, and a report of what was saved.

recipe, settings     YAML or a name -> checked steps          apply        directory + recipe -> directory
texts                calibration and evaluation windows       walk         block by block, inputs of every linear layer
rounding gptq awq    integers                                 report       what was measured, and what may be claimed
"""
