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
    #[cfg(any(feature = "vulkan", feature = "metal", feature = "webgpu"))]
    {
        use burn::tensor::DeviceKind;
        let which = index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
        match kind {
            #[cfg(feature = "vulkan")]
            "vulkan" => return Ok(Device::vulkan(which)),
            #[cfg(feature = "metal")]
            "metal" => return Ok(Device::metal(which)),
            #[cfg(feature = "webgpu")]
            "webgpu" => return Ok(Device::webgpu(which)),
            _ => {}
        }
    }
    let _ = index;
    Err(format!(
        "this build has no {kind} support; build percept with `--features {kind}`"
    ))
}
