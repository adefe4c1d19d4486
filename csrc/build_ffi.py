"""The cffi builder of dtdfast._kernels: declares exactly what dtdfast.h does. Run by CMake through `python -m
cffi.gen_src`.
"""

import re
from pathlib import Path

from cffi import FFI

header = (Path(__file__).parent / "dtdfast.h").read_text()
constants = re.findall(r"^#define \w+ \d+", header, re.MULTILINE)
declarations = [line for line in header.splitlines() if not line.startswith("#")]

ffibuilder = FFI()
ffibuilder.cdef("\n".join(constants + declarations))
ffibuilder.set_source("dtdfast._kernels", '#include "dtdfast.h"')
