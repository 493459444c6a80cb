//! Safetensors split over several files, joined by an `*.safetensors.index.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::checkpoint::{Parts, file_len, open_file};
use crate::error::CheckpointError;
use crate::json::UniqueMap;
use crate::read::{Source, Stored};
use crate::safetensors::{MAX_TENSORS, read_header};

/// An index has one short line a tensor; this is a hundred times the largest published.
const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// Each shard is a file held open; the largest published models have under 200.
const MAX_SHARDS: usize = 512;

/// The part of the index that says where tensors are. The rest (`metadata.total_size`) is ignored.
#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Reads the index at `path` and the headers of the shards beside it.
pub(crate) fn open(path: &Path, file: File) -> Result<Parts, CheckpointError> {
    let len = file_len(path, &file)?;
    if len > MAX_INDEX {
        return Err(CheckpointError::LimitExceeded {
            path: path.to_owned(),
            what: "bytes of shard index",
            limit: MAX_INDEX,
        });
    }
    let index: Index =
        serde_json::from_reader(std::io::BufReader::new(file)).map_err(|source| {
            CheckpointError::Json {
                path: path.to_owned(),
                source,
            }
        })?;
    let map = index.weight_map.0;
    if map.len() > MAX_TENSORS {
        return Err(CheckpointError::LimitExceeded {
            path: path.to_owned(),
            what: "tensors",
            limit: MAX_TENSORS as u64,
        });
    }
    let mut by_shard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in map {
        by_shard.entry(shard).or_default().push(tensor);
    }
    if by_shard.len() > MAX_SHARDS {
        return Err(CheckpointError::LimitExceeded {
            path: path.to_owned(),
            what: "shards",
            limit: MAX_SHARDS as u64,
        });
    }

    let folder = path.parent().unwrap_or(Path::new(""));
    let mut parts = Parts::default();
    for (shard, wanted) in by_shard {
        if !is_plain_name(&shard) {
            return Err(CheckpointError::ShardPath {
                path: path.to_owned(),
                shard,
            });
        }
        let shard_path = folder.join(&shard);
        if !shard_path.is_file() {
            return Err(CheckpointError::MissingShard {
                path: path.to_owned(),
                shard,
            });
        }
        let file = open_file(&shard_path)?;
        let len = file_len(&shard_path, &file)?;
        if len == 0 {
            return Err(CheckpointError::EmptyFile { path: shard_path });
        }
        let header = read_header(&shard_path, &file, len)?;
        parts.metadata.extend(header.metadata);
        let mut held: BTreeMap<_, _> = (header.tensors.into_iter())
            .map(|t| (t.name, (t.info, t.offset)))
            .collect();
        for tensor in wanted {
            let Some((info, offset)) = held.remove(&tensor) else {
                return Err(CheckpointError::NotInShard {
                    path: path.to_owned(),
                    tensor,
                    shard,
                });
            };
            parts.tensors.insert(
                tensor,
                Stored {
                    info,
                    source: parts.sources.len(),
                    offset,
                    strides: None,
                    scales: None,
                },
            );
        }
        parts.sources.push(Source::new(&shard_path, file));
    }
    crate::quantized::join(path, &mut parts.tensors, &parts.metadata)?;
    Ok(parts)
}

/// One ordinary component: no folder, no `..`, no drive. Links are not resolved, because the
/// Hugging Face cache is made of links to blobs in another folder.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(_)))
        && components.next().is_none()
        // Separators of other systems, which `Path` takes for ordinary characters here, and the
        // trailing `/` that it drops.
        && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::is_plain_name;

    #[test]
    fn only_plain_names_pass() {
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
        for bad in [
            "", ".", "..", "../a", "a/b", "/a", "a/", "C:\\a", "..\\a", "a\0",
        ] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
