"""S3Store: one bucket of any S3 service as an object store.

options     what the user chose about the service: frozen values
answers     status and code -> StoreError with a sentence (pure)
client      aiobotocore on trio: one client, its settings, its failures -> StoreError
store       S3Store: the protocol; composes the rest
lean/       a lane of its own for ranged GET, HEAD, LIST and the plain mutations
"""
