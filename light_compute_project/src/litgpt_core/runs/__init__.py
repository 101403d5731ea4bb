"""Reading what finished and running trainings left in their run folders."""
