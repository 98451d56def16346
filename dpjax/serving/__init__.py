"""A policy as a server: the wire format, what messages must hold, batching, and a client."""
