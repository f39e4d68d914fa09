"""The lean lane: ranged GET, HEAD, LIST and the plain mutations on trio sockets, everything else is aiobotocore's.

wire         HTTP/1.1 as bytes: requests, heads, framing, chunks; what is refused (pure)
listing      a LIST answer's XML straight into a Page (pure)
paging       where a page begins and where the next one does (pure)
connection   one socket, plain or TLS: send, receive into the caller's buffer, time-outs
pool         connections of one endpoint, kept alive and bounded
origin       where and as whom to ask: learnt from a request that botocore built
sign         Signature Version 4 with the client's refreshing credentials
changing     mutations as requests, their answers as botocore has them (pure)
asking       one request: who asks, on which connection, what a failure means
lane         Lane: get_into, head, list, change; composes the rest
"""
