"""The owners of the machines: each holds its run, its activities and the effects of its outputs.

The connection's owner is ``proxy.backend.link``, the association's is in ``proxy.dicom``, the
operation's, which has no activity, is ``proxy.supervision.operation``. An activity does input and
output, and tells its run facts; it decides nothing that a machine or ``proxy.machines.policy`` can
decide.
"""
