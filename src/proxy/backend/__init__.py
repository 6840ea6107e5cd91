"""ITH as this proxy sees it: the WebSocket link, the HTTPS interface, the archives it sends."""
