//! What a stretch of this process took, by the kernel's account.

use std::fs;
use std::io::{Error, Result};
use std::time::Instant;

/// Of the times in `/proc/self/stat`: the kernel shows them to every program in these, whatever it counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Runs from a start.
#[derive(Debug)]
pub struct Clock {
    at: Instant,
    cpu_ticks: u64,
    bytes: u64,
}

/// What a stretch took.
#[derive(Debug)]
pub struct Spent {
    pub seconds: f64,
    /// User and system time of all threads, in steps of 10 ms.
    pub cpu_seconds: f64,
    /// Handed to the kernel for writing, whatever the call.
    pub bytes: u64,
}

impl Clock {
    pub fn start() -> Result<Self> {
        Ok(Self { cpu_ticks: cpu_ticks()?, bytes: bytes_written()?, at: Instant::now() })
    }

    pub fn stop(self) -> Result<Spent> {
        let seconds = self.at.elapsed().as_secs_f64();
        let cpu_seconds = (cpu_ticks()? - self.cpu_ticks) as f64 / TICKS_PER_SECOND;
        Ok(Spent { seconds, cpu_seconds, bytes: bytes_written()? - self.bytes })
    }
}

/// The largest that the process has been in memory, in MiB.
pub fn peak_mib() -> Result<f64> {
    Ok(labelled("/proc/self/status", "VmHWM:")? as f64 / 1024.0)
}

fn bytes_written() -> Result<u64> {
    labelled("/proc/self/io", "wchar:")
}

fn cpu_ticks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name in the second field may hold blanks.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
    let ticks: Vec<u64> =
        fields.into_iter().flatten().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    if ticks.len() == 2 { Ok(ticks[0] + ticks[1]) } else { Err(Error::other("/proc/self/stat has another form")) }
}

/// The first number behind `label` in a file of labelled lines.
fn labelled(file: &str, label: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let number = text.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error::other(format!("{file} has no {label}")))
}
