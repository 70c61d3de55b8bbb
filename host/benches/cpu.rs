//! CPU time, of this thread and of the whole process: unlike the wall clock, it hardly moves with
//! what else the machine is doing.

use std::time::{Duration, Instant};

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
