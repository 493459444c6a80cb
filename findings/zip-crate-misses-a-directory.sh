#!/usr/bin/env bash
# zip 9.8.1 (Rust crate), torch 2.15.0 as the writer.
#
# What happens: PyTorch ends its archives with a zip64 end record and locator (76 bytes together) and an ordinary end
# record. By default the crate takes "end minus size" for the start of the directory if a directory header stands there.
# That place is 76 bytes late, and where the first entry's header has just 76 bytes, a header does stand there: the first
# entry is lost, the archive is believed to begin 76 bytes late, and opening it fails. Entry NAME/data.pkl has such a
# header when NAME has 21 letters. Renaming the file changes nothing, since the name is inside.
#
# Why one would expect otherwise: archives that differ in the length of a name alone should be read alike, and Python's
# zipfile and PyTorch read all of them.
#
# Seen:
#   20 letters: 7 entries in Python, 7 in the crate, the first is read
#   21 letters: 7 entries in Python, 0 in the crate, the first is an error
#   22 letters: 7 entries in Python, 7 in the crate, the first is read
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.15.0
cd "$folder"
cargo init --quiet --name reader reader
cargo add --quiet --manifest-path reader/Cargo.toml --no-default-features zip@=9.8.1
cat > reader/src/main.rs <<'RS'
fn main() {
    let file = std::fs::File::open(std::env::args().nth(1).expect("a path")).expect("a file");
    match zip::ZipArchive::new(file) {
        Err(error) => println!("0 error: {error}"),
        Ok(mut archive) => {
            let count = archive.len();
            let first = archive.by_index(0).map(|_| ());
            println!("{count} {}", if first.is_ok() { "read" } else { "error" });
        }
    }
}
RS
cargo build --quiet --manifest-path reader/Cargo.toml
venv/bin/python - <<'PY'
import subprocess
import zipfile

import torch

seen = {}
for letters in (20, 21, 22):
    path = "m" * letters + ".pt"
    torch.save({"weight": torch.zeros(2)}, path)
    torch.load(path)
    entries = len(zipfile.ZipFile(path).namelist())
    count, first = subprocess.run(
        ["reader/target/debug/reader", path], capture_output=True, text=True, check=True
    ).stdout.split(maxsplit=1)
    told = "is read" if first.strip() == "read" else "is an error"
    print(f"{letters} letters: {entries} entries in Python, {count} in the crate, the first {told}")
    seen[letters] = entries == int(count) and first.strip() == "read"
assert seen[20] and seen[22]
assert not seen[21], "names of 21 letters are read now"
PY
