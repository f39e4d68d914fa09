"""The command line: click commands, one module per group: parse -> config -> call.

Owns: words and options, what is printed, the choice of a store (open_store, and nowhere else).
Must not know: POSIX semantics, the kernel (fuse does), how a store works.

    main            the group, lazy subcommands; report turns each failure into one sentence and a status
    open_store      URL -> store; the data folder
    buckets         mb, rb                      listing      ls, stat, du
    objects         cp, mv, rm, cat             transfer     moving bytes between files and stores; places: what an operand names
    maintenance     store check|sweep|rebuild|scrub
    output          JSON lines, sizes and times for people, progress bars
    pending         pending, retry, discard, export: pending_items finds, pending_send stores, pending_export writes out;
                    pending_keeper keeps, pending_places says of which bucket, and how it is reached
    status          what a mount tells          waiting      what is shown while a command waits for one
    mount, umount   the mount's life            mount_options, mount_helper: the language of `-o`, what mount(8) calls
"""
