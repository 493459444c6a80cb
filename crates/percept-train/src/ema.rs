//! A moving average of the weights.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How the average starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmaStart {
    /// With the full decay from the first step.
    #[default]
    Full,
    /// With decay `(1 + t) / (10 + t)` at step `t` while that is less: random weights are
    /// forgotten sooner.
    Ramp,
}

/// Exponential moving average of every parameter, by name.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    start: EmaStart,
    updates: u64,
    values: BTreeMap<String, Vec<f32>>,
}

impl Ema {
    /// An average that has seen nothing; the first [`observe`](Self::observe) of a parameter
    /// copies it.
    pub fn new(decay: f64, start: EmaStart) -> Self {
        Self {
            decay,
            start,
            updates: 0,
            values: BTreeMap::new(),
        }
    }

    /// Counts a step; call it before observing that step's parameters.
    pub fn begin(&mut self) {
        self.updates += 1;
    }

    /// Takes in the values of a parameter: `average += (1 − decay) · (values − average)`.
    pub fn observe(&mut self, name: &str, values: &[f32]) {
        let decay = match self.start {
            EmaStart::Full => self.decay,
            EmaStart::Ramp => {
                let t = self.updates as f64;
                self.decay.min((1.0 + t) / (10.0 + t))
            }
        };
        let weight = (1.0 - decay) as f32;
        match self.values.get_mut(name) {
            Some(average) if average.len() == values.len() => average
                .par_chunks_mut(crate::optim::CHUNK)
                .zip(values.par_chunks(crate::optim::CHUNK))
                .for_each(|(average, values)| {
                    for (a, v) in average.iter_mut().zip(values) {
                        *a += weight * (v - *a);
                    }
                }),
            _ => {
                self.values.insert(name.to_owned(), values.to_vec());
            }
        }
    }

    /// The average of a parameter.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// All averages with their names, to be saved.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.values.iter().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// Steps counted so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Puts back what [`tensors`](Self::tensors) and [`updates`](Self::updates) gave; `read` has
    /// the values of a name.
    ///
    /// # Errors
    /// [`TrainError::State`] when a parameter of `shapes` is absent or has another length.
    pub fn restore(
        &mut self,
        updates: u64,
        shapes: &[(String, Vec<usize>)],
        mut read: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), TrainError> {
        let mut restored = BTreeMap::new();
        for (name, shape) in shapes {
            let values = crate::optim::read_state(name, shape, &mut read)?;
            restored.insert(name.clone(), values);
        }
        self.values = restored;
        self.updates = updates;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_move_by_their_decay() {
        let mut ema = Ema::new(0.9, EmaStart::Full);
        for value in [1.0, 2.0, 2.0] {
            ema.begin();
            ema.observe("w", &[value]);
        }
        assert!((ema.get("w").unwrap()[0] - 1.19).abs() < 1e-6);
        let mut other = Ema::new(0.9, EmaStart::Full);
        let shapes = [("w".to_owned(), vec![1])];
        other
            .restore(ema.updates(), &shapes, |name| {
                ema.get(name).map(<[f32]>::to_vec)
            })
            .unwrap();
        assert_eq!(other.get("w"), ema.get("w"));
        assert!(other.restore(0, &shapes, |_| None).is_err());
    }

    #[test]
    fn a_ramp_forgets_the_start() {
        let mut ema = Ema::new(0.999, EmaStart::Ramp);
        ema.observe("w", &[100.0]);
        for _ in 0..50 {
            ema.begin();
            ema.observe("w", &[1.0]);
        }
        assert!(ema.get("w").unwrap()[0] < 1.1);
    }
}
