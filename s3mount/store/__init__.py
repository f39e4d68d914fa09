"""Object-store semantics, asynchronous on trio: the protocol, its implementations, and wrappers around them."""
