"""Object-store semantics, asynchronous on trio.

    api        the protocol, its contract, Capabilities
    memory     MemoryStore, the reference that the others are compared with;  bucket: its state;  rules: what every store refuses alike
    local      LocalStore: one bucket of the embedded engine
    wrap/      stores around a store: Retrying, Limited, Faulty, Traced

tests/store holds the contract as one suite of plain functions (conformance.py) that every store and wrapper passes.
"""
