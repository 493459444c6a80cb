#!/usr/bin/env python3
"""What the compiler made of the products of percept-cpu.

Products are plain loops that the compiler is to turn into vectors, for AVX2 and for AVX-512, whatever the CPU that it
runs on. A small change of these loops can make scalars of them for one of the two: correct, ten times as slow, and
not to be noticed on a CPU of the other kind. This looks for the loops in a program and fails where some are missing:
24 sums in 512 bits (twelve rows, two registers), twelve in 512 and in 256 bits, none of them stored.

    cargo build --release -p percept-cpu --example time_kernels
    python3 tools/loops.py target/release/examples/time_kernels
"""

import collections
import re
import subprocess
import sys

# Products, sums of outer products, both layers of a feed-forward, both products of attention.
AT_LEAST = {("zmm", 24): 5, ("zmm", 12): 4, ("ymm", 12): 5}
LONGEST = 60


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    command = ["objdump", "--disassemble", "--no-show-raw-insn", sys.argv[1]]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    at = {}
    found = collections.Counter()
    for number, line in enumerate(lines):
        if not (match := re.match(r"\s+([0-9a-f]+):\s+(\S+)\s*([0-9a-f]*)", line)):
            continue
        at[int(match[1], 16)] = number
        start = at.get(int(match[3], 16)) if match[2].startswith("j") and match[3] else None
        if start is None or number - start > LONGEST:
            continue
        body = lines[start : number + 1]
        for register in ["zmm", "ymm"]:
            sums = sum("vfmadd" in line and register in line for line in body)
            stores = sum(bool(re.search(rf"vmov\w+\s+%{register}\d+,.*\(", line)) for line in body)
            if sums and not stores:
                found[register, sums] += 1
    is_good = True
    for (register, sums), least in AT_LEAST.items():
        count = found[register, sums]
        is_good &= count >= least
        print(f"{sums} sums in {register}: {count} loops, at least {least} wanted")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
