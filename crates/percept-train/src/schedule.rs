//! Learning rates over time, as open_clip's `scheduler.py` gives them.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A learning rate for every step: linear warm-up, then a shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The rate after the warm-up.
    pub lr: f64,
    /// Steps of linear warm-up; the first step has `lr / warmup`.
    #[serde(default)]
    pub warmup: u64,
    /// Steps of the whole training.
    pub steps: u64,
    /// What follows the warm-up.
    #[serde(default)]
    pub shape: Shape,
}

/// The learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Shape {
    /// Half a cosine, to zero.
    #[default]
    Cosine,
    /// The same to the end.
    Const,
    /// The same, then down to `end` over the last `steps`.
    ConstCooldown {
        /// Steps of the descent.
        steps: u64,
        /// 1 for a straight line; open_clip's `--lr-cooldown-power`.
        power: f64,
        /// The rate at the end.
        end: f64,
    },
}

impl Schedule {
    /// Checks that the numbers make a schedule.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the one at fault.
    pub fn validate(&self) -> Result<(), TrainError> {
        let setting = |name, value: String, reason| {
            Err(TrainError::Setting {
                name,
                value,
                reason,
            })
        };
        if !self.lr.is_finite() || self.lr < 0.0 {
            return setting("lr", self.lr.to_string(), "not a rate");
        }
        if let Shape::ConstCooldown { steps, power, end } = self.shape {
            if steps > self.steps {
                let reason = "more than all steps";
                return setting("cooldown steps", steps.to_string(), reason);
            }
            if !power.is_finite() || power < 0.0 || !end.is_finite() || end < 0.0 {
                let value = format!("{power}, {end}");
                return setting("cooldown power, end", value, "not both at least 0");
            }
        }
        Ok(())
    }

    /// The rate of a step, counted from 0. After the last step it stays what it was at the end.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let step = step.min(self.steps);
        /// How much of `from..to` has passed at `step`.
        fn passed(step: u64, from: u64, to: u64) -> f64 {
            if to <= from {
                return 1.0;
            }
            step.saturating_sub(from) as f64 / (to - from) as f64
        }
        match self.shape {
            Shape::Cosine => {
                let passed = passed(step, self.warmup, self.steps);
                0.5 * (1.0 + (std::f64::consts::PI * passed).cos()) * self.lr
            }
            Shape::Const => self.lr,
            Shape::ConstCooldown { steps, power, end } => {
                let start = self.steps.saturating_sub(steps);
                if step < start {
                    return self.lr;
                }
                let left = (1.0 - passed(step, start, self.steps)).powf(power);
                left * (self.lr - end) + end
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: Shape) -> Schedule {
        Schedule {
            lr: 2.0,
            warmup: 4,
            steps: 20,
            shape,
        }
    }

    #[test]
    fn rates_are_those_of_open_clip() {
        // open_clip's cosine_lr(optimizer, 2.0, 4, 20) and const_lr_cooldown(…, 2.0, 4, 20, 8, 2.0, 0.5).
        let cosine = schedule(Shape::Cosine);
        let cooldown = schedule(Shape::ConstCooldown {
            steps: 8,
            power: 2.0,
            end: 0.5,
        });
        for (step, expected_cosine, expected_cooldown) in [
            (0, 0.5, 0.5),
            (3, 2.0, 2.0),
            (4, 2.0, 2.0),
            (11, 1.195_090_322_016_128_4, 2.0),
            (12, 1.0, 2.0),
            (16, 0.292_893_218_813_452_4, 0.875),
            (19, 0.019_214_719_596_769_57, 0.523_437_5),
        ] {
            assert!((cosine.at(step) - expected_cosine).abs() < 1e-12, "{step}");
            assert!(
                (cooldown.at(step) - expected_cooldown).abs() < 1e-12,
                "{step}"
            );
        }
        assert_eq!(schedule(Shape::Const).at(19), 2.0);
        assert_eq!(cosine.at(1000), 0.0);
    }

    #[test]
    fn a_warm_up_longer_than_the_training_ends_somewhere() {
        let mut schedule = schedule(Shape::Cosine);
        schedule.steps = 2;
        assert!(schedule.at(1).is_finite() && schedule.at(7).is_finite());
    }
}
