"""Reading a state dict without running anything in its file."""

import pickletools
import re
import warnings
import zipfile

import torch

from common.errors import UserError, printable

# What a file may hold: the type of a tensor, and NumPy's where it is read.
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
# All that a state dict of tensors needs.
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
# How a pickle else names what it makes; torch.save does not.
OTHER_OBJECTS = {
    *("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),
    *("EXT1", "EXT2", "EXT4"),
}
MOST_PICKLE = 2**20  # bytes; that of this network has 16,000
ADVICE = "save net.state_dict() alone"
COUNTER = "num_batches_tracked"
# What `prepare` and DataParallel put around a network.
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.|net\.)+")


def values(tensor):
    """Return a tensor as a NumPy array; 16-bit floats become float32."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.resolve_neg().numpy()


def read_state(path):
    """Return the tensors of a file by their names, without wrappers'."""
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused anyhow
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
    """Raise UserError where reading a file would take more than it has.

    PyTorch's reader refuses to run what is in a file, and still makes
    objects of any size that the file asks for; the older files of another
    form leave memory unfilled where the file has nothing.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is damaged, or was saved by an old PyTorch: "
            "load it there and save it anew"
        )
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:  # torch.save compresses nothing
        raise UserError(f"{path} is compressed: save it anew")
    # PyTorch's own reader: another one may see another archive in the file.
    content = torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    if len(content) > MOST_PICKLE:
        raise UserError(f"{path} holds more than a state dict: {ADVICE}")
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in OTHER_OBJECTS:
            raise UserError(f"{path} holds more than tensors: {ADVICE}")
        if opcode.name == "GLOBAL" and argument not in GLOBALS:
            what = printable(str(argument).replace(" ", "."))
            raise UserError(
                f"{path} holds {what}, which is no tensor of numbers "
                f"and is not read: {ADVICE}"
            )


def _check_tensor(path, name, tensor):
    """Raise UserError unless it is a tensor of numbers under a name."""
    if not isinstance(name, str):
        raise UserError(f"{path}: the key {printable(repr(name))} is no name")
    if isinstance(tensor, dict):
        raise UserError(
            f"{path} holds a dictionary as {printable(name)!r}: save that "
            f"alone, with torch.save(checkpoint[{printable(name)!r}], FILE)"
        )
    if not _is_whole(tensor):
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise UserError(
            f"{path}: {printable(name)} is no tensor of numbers, but {kind}"
        )


def _is_whole(tensor):
    """Tell whether a tensor has all its values, in memory, one by one.

    A file may repeat one value without end by a stride of zero.
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
    """Return the tensors by the names of the network within a wrapper."""
    names = [WRAPPERS.sub("", name, count=1) for name in state]
    wrapped = all(WRAPPERS.match(name) for name in state)
    if not wrapped or len(set(names)) < len(names):
        return state
    return dict(zip(names, state.values(), strict=True))
