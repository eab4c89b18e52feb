//! What the system says of this process: memory and processor time (proc_pid_stat(5)).

use std::time::Duration;

/// Ticks a second in which Linux tells processor time to programs, on every architecture (sysconf(3), `_SC_CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory and processor time of this process; none where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) resident_bytes: u64,
    pub(super) processor: Duration,
}

impl Usage {
    pub(super) fn now() -> Option<Self> {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        Self::parse(&text("stat")?, &text("status")?)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name of the program stands in brackets, and may hold anything; fields are counted behind it, from the third.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let processor = Duration::from_millis((ticks(14)? + ticks(15)?) * 1_000 / TICKS_PER_SECOND);
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self { resident_bytes: kib * 1_024, processor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_program_s_name() {
        let stat = "7 (we ir) 2) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        let usage = Usage::parse(stat, "Name:\tweir\nVmRSS:\t    2048 kB\n").unwrap();
        assert_eq!(usage, Usage { resident_bytes: 2 << 20, processor: Duration::from_secs(3) });
        assert_eq!(Usage::parse("7 (weir) S 1", "VmRSS: 1 kB"), None);
    }

    #[test]
    fn a_running_process_has_used_some() {
        assert!(Usage::now().is_some_and(|usage| usage.resident_bytes > 1 << 20));
    }
}
