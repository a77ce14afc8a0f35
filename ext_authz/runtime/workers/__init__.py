"""Several worker processes behind one address, for more than one core.

The supervisor (`supervisor`) binds the address, accepts, and hands each connection to the worker that has the fewest
(`handing`). A small process without threads (`nursery`) forks the workers (`worker`); they decide. Files are read and checked
once, by the supervisor, and put in force in all workers or in none (`fleet`). What workers count is added up (`totals`).
"""
