"""Import MXNet 1.9.1, which was released in 2022.

MXNet uses aliases of Python's types that NumPy 1.24 removed, so they are
restored first. NumPy 2 changed too much for that. MXNet also needs two system
libraries that slim images lack.
"""

import warnings

import numpy

from common.errors import UserError

ALIASES = (bool, int, float, complex, object, str)
# The packages of each system library in Debian and Ubuntu, and in Fedora.
PACKAGES = {
    "libquadmath.so.0": ("libquadmath0", "libquadmath"),
    "libgomp.so.1": ("libgomp1", "libgomp"),
}


def import_mxnet():
    """Import MXNet and activate its NumPy interface, as the book does.

    Raises UserError if a system library is missing.
    """
    for alias in ALIASES:
        if alias.__name__ not in vars(numpy):
            setattr(numpy, alias.__name__, alias)
    try:
        with warnings.catch_warnings():
            # Its import warns of deprecated NumPy functions.
            warnings.simplefilter("ignore", DeprecationWarning)
            import mxnet
    except OSError as error:
        raise _missing_library(error) from error
    mxnet.npx.set_np()


def _missing_library(error):
    """Return the error that names the package of a missing library."""
    for library, (debian, fedora) in PACKAGES.items():
        if str(error).startswith(library):
            return UserError(
                f"MXNet needs the system library {library}: "
                f"apt-get install {debian}, or dnf install {fedora}"
            )
    return error
