"""Runs first in the sandbox: takes the modules it is sent in compiled form, `wire` and the one to run as `__main__`."""

import marshal
import sys
import types

with open("code.bin", "rb") as file:
    codes = marshal.loads(file.read())
wire = sys.modules["wire"] = types.ModuleType("wire")
exec(codes["wire.py"], wire.__dict__)
exec(codes["main"], globals())
