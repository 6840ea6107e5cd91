"""The interfaces to ITH: the WebSocket link, the HTTPS interface, and the archives it sends."""
