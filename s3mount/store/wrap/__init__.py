"""Stores around a store: each adds one behaviour and is an `ObjectStore` itself.

    base.py       Wrapper: delegates everything through one seam, `around(op, call)`; Op says what is asked
    retrying.py   Retrying: back-off within a time budget; looks before it repeats
    limited.py    Limited: how many requests of each kind run at once
    faulty.py     Faulty: faults as a script or a seed says, lost replies among them
    traced.py     Traced: counts requests by verb, one debug line each

The usual order is Traced(Retrying(Limited(store))): a request that waits for its next attempt holds no slot, and what is traced is what
the caller saw.
"""
