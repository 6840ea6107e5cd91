"""A site of a few nodes and dispatches, of the machines, the policy and the scheduler alone.

No trio, no sockets, no ledger, no disk. The machines, ``proxy.machines.policy`` and
``proxy.work.scheduler`` are the program's own; or, to see that a defect is found, one is planted in
them (``rules``). What tells the machines their events is a model, written as much like the program
as can be: the activities and owners of each machine (``connection``, ``node``, ``dispatch``,
``delivery``), the supervisor (``site``), the ledger (``ledger``), trio's tasks (``tasks``).

What happens at a site is a list of moves (``moves``): requests, answers of the world outside, and
time that goes by. Invariants are checked after each step, and in the end all must be over. Lists
are drawn by a test, which shrinks what it finds, or at random and fast by ``walk``.
"""
