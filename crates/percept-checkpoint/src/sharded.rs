//! A model split over several files, joined by an `*.safetensors.index.json` or `*.bin.index.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::checkpoint::{
    Container, Format, Parts, detect, file_len, json_text, open_file, open_one,
};
use crate::error::CheckpointError;
use crate::json::UniqueMap;
use crate::safetensors::MAX_TENSORS;

/// An index has one short line a tensor; this is a hundred times the largest published.
const MAX_INDEX: u64 = 64 * 1024 * 1024;

/// Each shard is a file held open; the largest published models have under 200.
const MAX_SHARDS: usize = 512;

/// The part of the index that says where tensors are. The rest (`metadata.total_size`) is ignored.
#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Reads the index at `path` and the shards beside it.
///
/// As in transformers, every tensor of a shard counts, also one that the index does not name; where
/// two shards have a tensor, the index says which is meant.
pub(crate) fn open(path: &Path, file: File) -> Result<(Format, Parts), CheckpointError> {
    let by_shard = read_index(path, file)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let named: BTreeMap<&str, &str> = (by_shard.iter())
        .flat_map(|(shard, wanted)| {
            wanted
                .iter()
                .map(|tensor| (tensor.as_str(), shard.as_str()))
        })
        .collect();
    let mut format = Format::ShardedSafeTensors;
    let mut parts = Parts::default();
    for (shard, wanted) in &by_shard {
        let (shard_format, held) = open_shard(path, folder, shard)?;
        if shard_format != Format::SafeTensors {
            format = Format::ShardedTorch;
        }
        let lacks = |tensor: &&String| {
            !held.tensors.contains_key(*tensor) && !held.left_out.contains_key(*tensor)
        };
        if let Some(tensor) = wanted.iter().find(lacks) {
            return Err(CheckpointError::NotInShard {
                path: path.to_owned(),
                tensor: tensor.clone(),
                shard: shard.clone(),
            });
        }
        join(path, &mut parts, held, shard, &named)?;
    }
    Ok((format, parts))
}

/// The tensors that the index places in each shard.
fn read_index(
    path: &Path,
    mut file: File,
) -> Result<BTreeMap<String, Vec<String>>, CheckpointError> {
    let limit = |what, limit: u64| CheckpointError::LimitExceeded {
        path: path.to_owned(),
        what,
        limit,
    };
    if file_len(path, &file)? > MAX_INDEX {
        return Err(limit("bytes of shard index", MAX_INDEX));
    }
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_INDEX)
        .read_to_end(&mut bytes)
        .map_err(|source| CheckpointError::Io {
            path: path.to_owned(),
            source,
        })?;
    let index: Index =
        serde_json::from_slice(json_text(&bytes)).map_err(|source| CheckpointError::Json {
            path: path.to_owned(),
            source,
        })?;
    let map = index.weight_map.0;
    if map.len() > MAX_TENSORS {
        return Err(limit("tensors", MAX_TENSORS as u64));
    }
    let mut by_shard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in map {
        by_shard.entry(shard).or_default().push(tensor);
    }
    if by_shard.len() > MAX_SHARDS {
        return Err(limit("shards", MAX_SHARDS as u64));
    }
    Ok(by_shard)
}

fn open_shard(
    index: &Path,
    folder: &Path,
    shard: &str,
) -> Result<(Format, Parts), CheckpointError> {
    if !is_plain_name(shard) {
        return Err(CheckpointError::ShardPath {
            path: index.to_owned(),
            shard: shard.to_owned(),
        });
    }
    let path = folder.join(shard);
    if !path.is_file() {
        return Err(CheckpointError::MissingShard {
            path: index.to_owned(),
            shard: shard.to_owned(),
        });
    }
    let mut file = open_file(&path)?;
    match detect(&path, &mut file)? {
        // A shard that is an index itself could name itself.
        Container::Index => Err(CheckpointError::ShardPath {
            path: index.to_owned(),
            shard: shard.to_owned(),
        }),
        Container::File(format) => Ok((format, open_one(&path, file, format)?)),
    }
}

/// Adds what a shard holds to what the others hold.
fn join(
    path: &Path,
    parts: &mut Parts,
    held: Parts,
    shard: &str,
    named: &BTreeMap<&str, &str>,
) -> Result<(), CheckpointError> {
    let first = parts.sources.len();
    let elsewhere = |name: &str| named.get(name).filter(|other| **other != shard);
    for (name, mut stored) in held.tensors {
        if let Some(other) = elsewhere(&name) {
            let reason = format!("the index takes this tensor from {other}");
            parts.left_out.insert(format!("{shard}: {name}"), reason);
            continue;
        }
        stored.source += first;
        if parts.tensors.contains_key(&name) {
            return Err(CheckpointError::DuplicateTensor {
                path: path.to_owned(),
                tensor: name,
            });
        }
        parts.tensors.insert(name, stored);
    }
    for (name, reason) in held.left_out {
        if elsewhere(&name).is_none() {
            parts.left_out.insert(name, reason);
        }
    }
    parts.numbers.extend(held.numbers);
    parts.sources.extend(held.sources);
    parts.metadata.extend(held.metadata);
    if parts.tensors.len() > MAX_TENSORS {
        return Err(CheckpointError::LimitExceeded {
            path: path.to_owned(),
            what: "tensors",
            limit: MAX_TENSORS as u64,
        });
    }
    Ok(())
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
