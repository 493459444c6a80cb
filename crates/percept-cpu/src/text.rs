//! What text encoders share.

/// Means `[texts, dim]` over the first tokens of each text, of which `lengths` says how many there are;
/// texts are `stride` numbers long.
pub(crate) fn means(x: &[f32], lengths: &[usize], stride: usize, dim: usize) -> Vec<f32> {
    let mut means = vec![0.0; lengths.len() * dim];
    for ((mean, rows), length) in (means.chunks_exact_mut(dim))
        .zip(x.chunks_exact(stride))
        .zip(lengths)
    {
        for row in rows.chunks_exact(dim).take(*length) {
            for (mean, value) in mean.iter_mut().zip(row) {
                *mean += value / *length as f32;
            }
        }
    }
    means
}
