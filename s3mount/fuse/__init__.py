"""The thin shell between the kernel and `s3mount.fs`, and the process that carries it.

    operations  attributes          translate in, call, translate out;  deadline: how long that may take
    invalidate  occupied            tell the kernel to forget, from a thread; who is in the mount without a request telling it
    intake                          which task reads the next request, in the place of pyfuse3's own waiting
    session     tuning              one mount from init to close; what the kernel lets us raise
    mountpoint  utab                is the place fit, what is mounted there, take it off; so that umount(8) calls our helper
    daemon      runtime   logs      the background process, its record, its log
    control                         a socket beside the record: questions and errands that need not go through the kernel
    notify                          the service manager's protocol

Arrows: session -> operations, intake, tuning, invalidate, mountpoint, utab, notify -> attributes. Only this package imports pyfuse3.
"""
