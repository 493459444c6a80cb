//! Processes that `mpirun` started, through the system's MPI library.

use ::mpi::Threading;
use ::mpi::collective::SystemOperation;
use ::mpi::datatype::PartitionMut;
use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives, Root};

use crate::TrainError;
use crate::collective::Collective;

/// The processes of an `mpirun`. Errors of MPI itself end all of them, with its own message.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

impl Mpi {
    /// Joins the others; only the thread that did may use it.
    ///
    /// # Errors
    /// [`TrainError::Collective`] if MPI was begun before.
    pub fn join() -> Result<Self, TrainError> {
        let (universe, _) =
            ::mpi::initialize_with_threading(Threading::Funneled).ok_or_else(|| {
                TrainError::Collective {
                    reason: "MPI has begun already".into(),
                }
            })?;
        Ok(Self {
            world: universe.world(),
            _universe: universe,
        })
    }

    /// Ends all processes at once: what a process that fails has to do, since the others would wait
    /// for it.
    pub fn abort(&self, code: u8) -> ! {
        self.world.abort(i32::from(code))
    }
}

impl Collective for Mpi {
    fn rank(&self) -> u32 {
        self.world.rank().unsigned_abs()
    }

    fn world(&self) -> u32 {
        self.world.size().unsigned_abs()
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, TrainError> {
        let too_long = |_| TrainError::Collective {
            reason: "more than 2 GiB to exchange".into(),
        };
        let length = i32::try_from(own.len()).map_err(too_long)?;
        let mut lengths = vec![0i32; self.world() as usize];
        self.world.all_gather_into(&length, &mut lengths[..]);
        let mut starts = Vec::with_capacity(lengths.len());
        let mut total = 0i64;
        for length in &lengths {
            starts.push(i32::try_from(total).map_err(too_long)?);
            total += i64::from(*length);
        }
        i32::try_from(total).map_err(too_long)?;
        let mut all = vec![0u8; total as usize];
        let mut parts = PartitionMut::new(&mut all[..], &lengths[..], &starts[..]);
        self.world.all_gather_varcount_into(own, &mut parts);
        let mut rest = all.as_slice();
        Ok((lengths.iter())
            .map(|length| {
                let (part, after) = rest.split_at(*length as usize);
                rest = after;
                part.to_vec()
            })
            .collect())
    }

    fn sum(&self, values: &mut [f32]) -> Result<(), TrainError> {
        // Not all-reduce, which may add in another order for each process: weights would drift
        // apart by rounding.
        let root = self.world.process_at_rank(0);
        if self.rank() == 0 {
            let own = values.to_vec();
            root.reduce_into_root(&own[..], values, SystemOperation::sum());
        } else {
            root.reduce_into(&*values, SystemOperation::sum());
        }
        root.broadcast_into(values);
        Ok(())
    }
}
