"""Read a state dict without running any code from its file."""

import pickletools
import re
import warnings
import zipfile
import zlib

import torch

from common.errors import UserError, printable

# The tensor types that a file may hold, and the NumPy type of each.
DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float32",
    torch.bfloat16: "float32",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.bool: "bool",
}
# The only names that a state dict of tensors needs.
GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(
        f"torch {kind}Storage"
        for kind in (
            *("Float", "Double", "Half", "BFloat16"),
            *("Long", "Int", "Short", "Char", "Byte", "Bool"),
        )
    ),
}
# Opcodes that make other objects; torch.save does not use them.
OTHER_OBJECTS = {
    *("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    *("EXT1", "EXT2", "EXT4"),
}
FOLDER = 0x10  # the attribute of a folder in a zip
MAX_PICKLE = 2**20  # bytes; this network's has 16,000
ADVICE = "save only net.state_dict()"
COUNTER = "num_batches_tracked"
# Prefixes that `prepare` and DataParallel add to names.
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.|net\.)+")


def values(tensor):
    """Return a tensor as a NumPy array; 16-bit floats become float32."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.resolve_neg().numpy()


def read_state(path):
    """Return the tensors of a file by name, without prefixes of wrappers."""
    if not path.is_file():
        raise UserError(f"there is no weights file {path}: check the path")
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused
            state = torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(state.items())
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(
            f"{path} is not a state dict of tensors, or is damaged; "
            "nothing in it was run"
        ) from error
    for name, tensor in tensors.items():
        _check_tensor(path, name, tensor)
    return _without_wrappers(
        {name: tensor.detach() for name, tensor in tensors.items()}
    )


def _check_archive(path):
    """Raise UserError if a file could claim more memory than its size.

    PyTorch's reader runs no code from a file, but it creates objects of any
    size that the file asks for. Files in PyTorch's older format can leave
    memory uninitialised.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is damaged, or was saved by an old PyTorch: "
            "load it there and save it again"
        )
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:  # torch.save compresses nothing
        raise UserError(f"{path} is compressed: save it again")
    # Uses PyTorch's own reader: zipfile may find another archive in the file.
    reader = torch._C.PyTorchFileReader(str(path))
    _check_records(path, reader)
    content = reader.get_record("data.pkl")
    if len(content) > MAX_PICKLE:
        raise UserError(f"{path} holds more than a state dict: {ADVICE}")
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in OTHER_OBJECTS:
            raise UserError(f"{path} holds more than tensors: {ADVICE}")
        if opcode.name == "GLOBAL" and argument not in GLOBALS:
            what = printable(str(argument).replace(" ", "."))
            raise UserError(
                f"{path} holds {what}, which is not a tensor of numbers "
                f"and is not read: {ADVICE}"
            )


def _check_records(path, reader):
    """Raise UserError unless every record has the checksum in the archive.

    Differs: PyTorch writes these checksums, but does not verify them.
    """
    with zipfile.ZipFile(path) as archive:
        checksums = {
            entry.filename.partition("/")[2]: entry.CRC
            for entry in archive.infolist()
            # PyTorch reads nothing of a folder, and leaves memory as it was.
            if not entry.external_attr & FOLDER
        }
    # Uses PyTorch's own reader: zipfile may find other bytes.
    for name in reader.get_all_records():
        if zlib.crc32(reader.get_record(name)) != checksums.get(name):
            raise UserError(
                f"{path} is damaged, or was saved without checksums: that of "
                f"{printable(name)} is wrong; use another copy, or save the "
                "network again"
            )


def _check_tensor(path, name, tensor):
    """Raise UserError unless this is a tensor of numbers with a name."""
    if not isinstance(name, str):
        raise UserError(f"{path}: key {printable(repr(name))} is not a name")
    if isinstance(tensor, dict):
        raise UserError(
            f"{path} holds a dictionary as {printable(name)!r}: save only "
            f"that, with torch.save(checkpoint[{printable(name)!r}], FILE)"
        )
    if not _is_whole(tensor):
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise UserError(
            f"{path}: {printable(name)} is not a tensor of numbers, but {kind}"
        )


def _is_whole(tensor):
    """Return whether a tensor has all its values in memory.

    With a stride of zero, a file could repeat one value without limit.
    """
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.dtype in DTYPES
        and tensor.nbytes <= tensor.untyped_storage().nbytes()
    )


def _without_wrappers(state):
    """Return the tensors by the names of the wrapped network."""
    names = [WRAPPERS.sub("", name, count=1) for name in state]
    wrapped = all(WRAPPERS.match(name) for name in state)
    if not wrapped or len(set(names)) < len(names):
        return state
    return dict(zip(names, state.values(), strict=True))
