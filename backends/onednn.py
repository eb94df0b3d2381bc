"""The CPU instructions that oneDNN, MXNet's library on the CPU, uses.

When MXNet is imported, oneDNN reads the newest instructions that it may use
from an environment variable. It uses AMX only if the variable names it.
"""

import ctypes
import os
import sys

from common.errors import UserError
from common.system.environment import cpu_flags

VARIABLE = "DNNL_MAX_CPU_ISA"
AMX = "AVX512_CORE_AMX"
# oneDNN's names, newest first, and the Linux CPU flag of each.
INSTRUCTIONS = {
    AMX: "amx_bf16",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX2_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "AVX": "avx",
    "SSE41": "sse4_1",
}
AMX_FLAGS = {"amx_tile", "amx_bf16"}
# Linux on x86-64.
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18


def allow_amx(precision: str) -> None:
    """Enable AMX in oneDNN for bf16, if Linux allows it.

    Does nothing if the user has chosen other instructions. Raises UserError if
    the user has chosen AMX and Linux refuses it.
    """
    chosen = os.environ.get(VARIABLE)
    wanted = chosen == AMX or (chosen is None and precision == "bf16")
    if not wanted or not cpu_flags() >= AMX_FLAGS:
        return
    allowed = amx_allowed()
    if chosen == AMX and not allowed:
        raise UserError(
            f"{VARIABLE}={AMX}: Linux refuses AMX to this process, which "
            "would crash: unset the variable"
        )
    if allowed and "mxnet" not in sys.modules:
        os.environ[VARIABLE] = AMX


def amx_allowed() -> bool:
    """Ask Linux for AMX's registers; return whether it grants them.

    MXNet's oneDNN 2.4 does not ask. Without the permission, the process ends
    with SIGILL.
    """
    libc = ctypes.CDLL(None)
    asked = ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return libc.syscall(*asked) == 0


def instructions(precision: str) -> str:
    """Return the newest instructions that oneDNN uses in MXNet.

    For bf16, adds why AMX is not used. Returns '' if the system does not list
    the processor's flags.
    """
    flags, names = cpu_flags(), list(INSTRUCTIONS)
    chosen = os.environ.get(VARIABLE)
    # oneDNN ignores unknown names.
    allowed = names[names.index(chosen) if chosen in names else 1 :]
    found = next((name for name in allowed if INSTRUCTIONS[name] in flags), "")
    if chosen is None and precision == "bf16" and flags >= AMX_FLAGS:
        why = "Linux refuses it"
        if amx_allowed():
            why = "MXNet was imported before"
        return f"{found}, without AMX: {why}"
    return found
