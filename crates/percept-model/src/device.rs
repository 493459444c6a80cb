//! Device names of the command line: `auto`, `cpu`, `vulkan[:N]`, `metal[:N]`, `webgpu[:N]`.

use burn::tensor::Device;

use crate::ModelError;

/// The device of this name. `auto` is the CPU: a GPU is only used when it is asked for, so that a
/// number made on one machine can be made on another.
///
/// # Errors
/// [`ModelError::Device`] for an unknown name, or one that this build was made without.
pub fn device(name: &str) -> Result<Device, ModelError> {
    let fail = |reason: String| ModelError::Device {
        name: name.to_owned(),
        reason,
    };
    let (kind, index) = match name.split_once(':') {
        None => (name, None),
        Some((kind, index)) => {
            let index: usize = index
                .parse()
                .map_err(|_| fail(format!("\"{index}\" is not a number")))?;
            (kind, Some(index))
        }
    };
    match kind {
        "auto" | "cpu" if index.is_none() => Ok(Device::flex()),
        "vulkan" | "metal" | "webgpu" => gpu(kind, index).map_err(fail),
        _ => Err(fail(
            "not one of auto, cpu, vulkan[:N], metal[:N], webgpu[:N]".into(),
        )),
    }
}

/// A GPU through one of the graphics interfaces that were compiled in.
fn gpu(kind: &str, index: Option<usize>) -> Result<Device, String> {
    let compiled = match kind {
        "vulkan" => cfg!(feature = "vulkan"),
        "metal" => cfg!(feature = "metal"),
        _ => cfg!(feature = "webgpu"),
    };
    if compiled {
        open_gpu(kind, index)
    } else {
        Err(not_compiled(kind))
    }
}

fn not_compiled(kind: &str) -> String {
    format!("this build has no {kind} support; build percept with `--features {kind}`")
}

/// Opens a GPU, once: Burn refuses to set up the same one again.
#[cfg(any(feature = "vulkan", feature = "metal", feature = "webgpu"))]
fn open_gpu(kind: &str, index: Option<usize>) -> Result<Device, String> {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use burn::tensor::DeviceKind;
    use burn::tensor::wgpu::WgpuBackend;

    type Opened = HashMap<(String, Option<usize>), Device>;
    static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = opened.get_or_insert_default();
    let key = (kind.to_owned(), index);
    if let Some(device) = opened.get(&key) {
        return Ok(device.clone());
    }
    let api = match kind {
        "vulkan" => WgpuBackend::Vulkan,
        "metal" => WgpuBackend::Metal,
        _ => WgpuBackend::Auto,
    };
    let which = index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
    let device = Device::wgpu_options()
        .graphics_api(api)
        .device_kind(which)
        .init()
        .map_err(|error| error.to_string())?;
    opened.insert(key, device.clone());
    Ok(device)
}

#[cfg(not(any(feature = "vulkan", feature = "metal", feature = "webgpu")))]
fn open_gpu(kind: &str, _: Option<usize>) -> Result<Device, String> {
    Err(not_compiled(kind))
}
