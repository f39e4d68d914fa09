"""The S3 HTTP API over the engine: what `s3mount serve` runs.

Owns: everything between a socket and `s3mount.engine`. Must not know: FUSE, the file system, the store protocol. asyncio with aiohttp;
the mount's process never loads this package.

The design
----------
*A request* is taken as it arrived (`wire`), its signature verified over just that (`sigv4`, `sigv2`, `access`), routed by method and
sub-resource, and answered by one handler, which asks the engine in a worker thread where that may wait. *What is pure is apart*: the
modules of the first list compute from values to values, know neither clock nor socket nor engine, and are tested by tables.

*A body* is received in one pass: aws-chunked is undone (`chunked`), bytes are hashed (`checksums`) and written aside at once, and nothing
is committed before length, Content-MD5, checksum, trailer, payload hash and signatures have all been found right. So a wrong body leaves
nothing behind, and memory is bounded by a few blocks per request.

*An error* is an `S3Error` wherever it arises (`s3errors`); one place turns it into S3's document. What the engine raises is translated by
one table. Anything else is a defect: logged with its traceback, answered InternalError.

Where authorities disagree
--------------------------
AWS, its documents, and the suites that test look-alikes differ in places. Chosen here, once:
 1. Conditional writes follow HTTP: `*` and ETags count in If-Match and If-None-Match alike (AWS: 501 for the unusual halves). An If-Match
    that finds nothing is 404. Writers cannot both pass, as the engine judges under its lock, so the loser gets 412 at once; 409
    ConditionalRequestConflict is left for a decision that could not be bound to one state after several attempts. [conditions]
 2. Conditional deletes: If-Match with an ETag and nothing there is 404, with `*` 412, as at AWS (another suite wants 204). [conditions]
 3. A part number past the end is 416 InvalidPartNumber; a bad source range of a part copy is 400 InvalidArgument, as at AWS. [ranges]
 4. A completion that names no part, or has no body, is MalformedXML, as AWS has been seen to answer in several reports. [xml]
 5. A completion sent again is answered 200 again, with the same ETag, as long as the object is the one it made: tools retry it.
 6. A checksum that is no digest at all is InvalidRequest, as at AWS; one of another body is BadDigest. Content-MD5 likewise: InvalidDigest
    and BadDigest. An x-amz-checksum-* that is not computed here is NotImplemented, never ignored. [checksums]
 7. A presigned request is 403 AccessDenied when X-Amz-Expires is negative, over 604800, or when it has expired (AWS: 400 for the first
    two). Zero has always expired. [sigv4]
 8. More than ten tags are InvalidTag (AWS: BadRequest). [tags]
 9. Blanks are %20 in listings with encoding-type=url, which every client decodes; `+` is not what all of them decode. [xml]
10. Keys with control characters are answered as character references without encoding-type=url, as AWS does, though XML 1.0 forbids it.
11. Any region in a signature is right. LocationConstraint us-east-1 is accepted.
12. User metadata that is no ASCII is answered encoded by RFC 2047, as at AWS. [metadata]
13. No answer claims what does not happen: no x-amz-server-side-encryption while bodies are stored in the clear, though AWS sends it always.
14. Owners have an ID and no DisplayName, as at AWS today.

Files
-----
pure:
    wire         a request as it arrived: target, bucket, key, query, headers
    s3errors     S3's codes, statuses, sentences; what the engine's errors are called
    sigv4, sigv2 claims, canonical forms, verification, chunk signatures, presigning
    access       key pairs, rights, authentication
    post_policy  browser forms: policies and their signatures
    chunked      aws-chunked: forms and the push decoder
    checksums    computing, writing, combining, what requests claim
    conditions   If-Match and its family, for reads, copies, writes, deletes
    ranges       Range and x-amz-copy-source-range
    metadata     user metadata, content headers, storage classes, response-* overrides
    tags         rules of tag sets, x-amz-tagging
    cors         rules and the headers they give
    xml          writing, and bounded reading of each kind of document
application:
    front        aiohttp's protocol with answers of our own: what goes out, what is said to what is no HTTP
    app          one request from arrival to answer; where errors become answers
    calls        what handlers get and give: `Service`, `Call`, `Reply`
    settling     small changes made on the loop, many sharing one sync
    routing      the table of operations;  demands (headers that ask for more than the operation)
    ingest       bodies on their way in: decoded, hashed and written in threads, verified
    intake       long bodies from the socket into blocks, past aiohttp
    lanes        work on a body while it arrives, in threads, each kind in order
    outgest      answers on their way out: sendfile, pieces
    kept         what is kept with a version as the engine's `extra`: headers, tags, checksums, parts
    buckets, listing, versions, objects, copying, multipart, tagging, deleting, posting (forms), corsapi
                 the operations, by theme
operation:
    settings     every setting: one table, written as config.yaml, read with line numbers; the loopback rule
    worker       one process: engine, application, socket, upkeep, the way out;  workers (several on one port)
    doors        connections: how many, and how long one may keep us waiting
    observe      a line per request, bandwidth, /-/health, /-/metrics;  figures (numbers shared by workers)
    logs         JSON lines, files put aside by size
    maintenance  sweeps, abandoned uploads, a slow scrub, a new index on request
"""
