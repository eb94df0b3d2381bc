"""Import MXNet 1.9.1, which was released in 2022.

MXNet uses aliases of Python's types that NumPy 1.24 removed, so they are
restored first. NumPy 2 changed too much for that. MXNet also needs two system
libraries that slim images lack.
"""

import os
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

    With the role of a scheduler or a server, the import serves the workers and
    then ends the program. Raises UserError if a system library is missing, or
    if the scheduler's port is taken.
    """
    serves = os.environ.get("DMLC_ROLE") in ("scheduler", "server")
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
    except RuntimeError as error:
        if serves and str(error).endswith("bind failed"):
            raise _taken_port() from error
        raise
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


def _taken_port():
    names = "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"
    address = ":".join(os.environ[name] for name in names)
    return UserError(
        f"the scheduler cannot listen at {address}: set DMLC_PS_ROOT_URI to "
        "an address of its host, and DMLC_PS_ROOT_PORT to a free port"
    )
