"""`python -m s3mount`: the same as the command `s3mount`.

Owns: nothing. Must not know: anything but where the command line begins.
"""

from s3mount.cli.main import main

if __name__ == "__main__":
    main()
