"""Clients over real sockets: of an app that is served in the test, or by a server elsewhere."""
