"""What goes on in the machines' states: one file of activities for each machine, same name.

The connection's activity is ``proxy.backend.link``; the association's are in ``proxy.dicom``.
An activity does input and output, and tells its run facts; it decides nothing that a machine or
``proxy.machines.policy`` can decide.
"""
