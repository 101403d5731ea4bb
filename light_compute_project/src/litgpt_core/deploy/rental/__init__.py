"""A training on a rented machine: what it would cost, the rental itself, and the stops that end it.

prices        what providers ask, with date and source; a table of your own
candidates    offers x recipe -> hours and dollars, and which one is taken
parcel        what travels to the machine
node_script   what the machine runs; its first lines end it at the deadline
request       one rental as it was requested
ledger        append-only record of every rental: machines, prices, seconds, dollars
guard         when a rental has to end, and ending it so that nothing is left
provider      what every place to rent at can do; local_machine, runpod, skypilot: the places
remote        shell commands on a machine, over SSH or here
mirror        the far run folder, copied here while the run goes on
session       launch, follow, relaunch, end
command       the command line; report: what it prints

Imports nothing; `plan` needs no account, no cloud library and no torch.
"""
