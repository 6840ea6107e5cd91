"""The control socket: the operator's requests to the running proxy, and its answers.

One request a connection, a line of JSON each way, over a Unix socket in the state directory.
``messages`` and ``client`` are the side of the commands and know nothing of the work; ``server``
and ``status`` are the side of the service.
"""
