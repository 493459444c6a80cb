#!/usr/bin/env bash
# Python's tarfile (3.11), and by it webdataset 1.0.2.
#
# What happens: a header that is damaged ends an archive as its end mark would, unless it is the first one. What stands
# behind it is not read, and no exception is raised; the same for a file that was cut between two members. Training on
# such a shard sees fewer samples, and webdataset's `handler`, which exists to be told of damage, hears nothing.
#
# Why one would expect otherwise: the same damage in the first header raises ReadError, and so does a member whose data
# are cut.
#
# Seen:
#   whole                         4 samples
#   third header overwritten      2 samples, 0 exceptions
#   cut after the second member   2 samples, 0 exceptions
#   first header overwritten      0 samples, 1 exception
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2
cd "$folder"
venv/bin/python - <<'PY'
import io
import tarfile

import webdataset

HEADER = 512
stream = io.BytesIO()
with tarfile.open(fileobj=stream, mode="w") as archive:
    for number in range(4):
        member = tarfile.TarInfo(f"{number}.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"dog"))
whole = stream.getvalue()


def overwritten(member):
    at = member * 2 * HEADER
    return whole[:at] + b"x" * HEADER + whole[at + HEADER:]


def read(name, shard):
    heard = []
    with open("shard.tar", "wb") as file:
        file.write(shard)

    def handler(error):
        heard.append(error)
        return True

    samples = list(webdataset.WebDataset("shard.tar", shardshuffle=False, handler=handler, empty_check=False))
    print(f"{name:29} {len(samples)} samples, {len(heard)} exceptions")
    return len(samples), len(heard)


assert read("whole", whole) == (4, 0)
assert read("third header overwritten", overwritten(2)) == (2, 0), "the damage is now told"
assert read("cut after the second member", whole[: 4 * HEADER]) == (2, 0)
assert read("first header overwritten", overwritten(0)) == (0, 1)
PY
