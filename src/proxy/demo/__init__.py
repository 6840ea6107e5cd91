"""The demonstration: an embedded ITH backend, two DICOM nodes and a CT session to dispatch.

``backend``, ``node`` and ``sample`` and the modules they use know nothing of the proxy; the
end-to-end tests use them as peers. Only ``run`` knows both sides.
"""
