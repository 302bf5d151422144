//! Describes the host on which the benchmark runs: processor, cores, memory, load.

use serde::Serialize;

/// The host, as far as it explains the figures.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// The number of cores that this process may use.
    pub cores: usize,
    /// The model name of the processor.
    pub processor: String,
    /// The version of the kernel.
    pub kernel: String,
    /// The memory, in bytes.
    pub memory: u64,
    /// The load average of the last minute before the benchmark.
    pub load: f64,
}

impl Host {
    /// Describes the host on which this process runs.
    pub fn this() -> Self {
        let processor = read("/proc/cpuinfo").lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == "model name").then(|| value.trim().to_owned())
        });
        Self {
            cores: cores(),
            processor: processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory: kib_field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default(),
            load: load(),
        }
    }
}

/// The number of cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = read("/proc/loadavg");
    text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Reads a field like `VmRSS:  1234 kB`, in bytes.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Reads a file of the kernel; empty if there is no such file.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_by_their_whole_name() {
        let text = "VmRSSx:\t1 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(kib_field(text, "VmRSS"), Some(12 << 10));
        assert_eq!(kib_field(text, "Vm"), None);
    }
}
