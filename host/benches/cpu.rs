//! CPU time, of this thread and of the whole process: unlike the wall clock, it hardly moves with
//! what else the machine is doing.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread.
pub(crate) fn thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process, ended ones too.
pub(crate) fn process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // Neither clock runs backwards from 0, so neither field is negative.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What a piece of work took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// On the wall clock.
    pub(crate) wall: Duration,
    /// CPU of the whole process.
    pub(crate) cpu: Duration,
}

/// Runs `work` and says what it took.
pub(crate) fn cost_of<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let (started, cpu) = (Instant::now(), process());
    let done = work();
    let cost = Cost {
        wall: started.elapsed(),
        cpu: process() - cpu,
    };
    (done, cost)
}

/// Keeps this thread, and those that it starts, on one core while it lives: what runs on two
/// cores at once takes more CPU time on each, as they may share more than the memory.
pub(crate) struct OneCore(CpuSet);

impl OneCore {
    /// Takes the first core that this thread may use.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn take() -> std::io::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        if let Some(first) = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)) {
            one.set(first);
        }
        sched_setaffinity(None, &one)?;
        Ok(Self(all))
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        // It was allowed all of them before.
        let _ = sched_setaffinity(None, &self.0);
    }
}
